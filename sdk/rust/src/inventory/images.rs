//! Pods whose node does not get an image.
//!
//! Such a pod never runs, and nothing follows from that for what was asked. So every wait for pods ends as soon as the kubelet has
//! tried in vain and says so, long before its own deadline, with [`Error::ImageUnavailable`] and the kubelet's message. Waits
//! for one kind of object ([`crate::kube::wait_for`], [`crate::kube::Watch::until`]) do it by themselves; who lists pods, or
//! follows several watches, asks [`pulled`] about each pod it has seen.

use crate::{Error, Object, Result, Value};

/// Words of the kubelet for an attempt that has just failed. A registry may stumble, so they decide nothing: when the kubelet comes
/// back to the pod, some ten seconds later, they become `ImagePullBackOff`, with their message in its own.
const ONCE: [&str; 3] = [
    "ErrImagePull",
    "RegistryUnavailable",
    "SignatureValidationFailed",
];

/// Words of the kubelet (`pkg/kubelet/images/types.go`) after which it does not try again soon, or never.
const IN_VAIN: [&str; 4] = [
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "ImageInspectError",
];

/// The containers of a pod as its status has them, those first that start first.
fn containers(pod: &Object) -> impl Iterator<Item = &Value> {
    let init = pod.items("/status/initContainerStatuses");
    init.iter().chain(pod.items("/status/containerStatuses"))
}

/// A word of a container that waits.
fn said<'a>(container: &'a Value, field: &str) -> &'a str {
    let waiting = &container["state"]["waiting"];
    waiting[field].as_str().unwrap_or_default()
}

/// Reason and message of a container that waits, one that waits for its image before others; empty where none does.
pub(super) fn waiting(pod: &Object) -> (&str, &str) {
    let waits = || containers(pod).filter(|one| !said(one, "reason").is_empty());
    let image = waits().find(|one| is_of_image(said(one, "reason")));
    let found = image.or_else(|| waits().next());
    found.map_or(("", ""), |one| (said(one, "reason"), said(one, "message")))
}

/// What a word of [`waiting`] says of an image.
///
/// Two that the kubelet has from the runtime do not say so by themselves.
pub(super) fn is_of_image(waiting: &str) -> bool {
    waiting.contains("Image") || ONCE.contains(&waiting)
}

/// Nothing, unless the node of a pod that is to run does not get an image.
///
/// # Errors
/// [`Error::ImageUnavailable`] with the kubelet's message.
pub fn pulled(pod: &Object) -> Result<()> {
    let says = |words: &[&str]| containers(pod).find(|one| words.contains(&said(one, "reason")));
    let Some(container) = says(&IN_VAIN) else {
        return Ok(());
    };
    // Where two containers have one image, the second is in back-off as soon as the pull for the first has failed once. And what is
    // being deleted is nobody's wait.
    if says(&ONCE).is_some() || !pod.at("/metadata/deletionTimestamp").is_null() {
        return Ok(());
    }
    let (reason, message) = (said(container, "reason"), said(container, "message"));
    Err(Error::ImageUnavailable(format!(
        "{pod}: {reason}: {message}"
    )))
}

/// [`pulled`] of each of these pods.
///
/// # Errors
/// That of the first for which there is one.
pub fn all_pulled<'a>(pods: impl IntoIterator<Item = &'a Object>) -> Result<()> {
    pods.into_iter().try_for_each(pulled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    fn pod(status: Value) -> Object {
        Object::new(
            json!({"kind": "Pod", "metadata": {"name": "p", "namespace": "n"}, "status": status}),
        )
    }

    fn waits(reason: &str) -> Value {
        json!({"state": {"waiting": {"reason": reason, "message": format!("of {reason}")}}})
    }

    #[test]
    fn a_wait_ends_where_the_kubelet_gave_up_and_not_where_it_stumbled() {
        for reason in IN_VAIN {
            let error = pulled(&pod(json!({"containerStatuses": [waits(reason)]}))).unwrap_err();
            let text = format!("Pod n/p: {reason}: of {reason}");
            assert_eq!(error, Error::ImageUnavailable(text));
        }
        for reason in [&ONCE[..], &["ContainerCreating", "CrashLoopBackOff"]].concat() {
            assert_eq!(
                pulled(&pod(json!({"containerStatuses": [waits(reason)]}))),
                Ok(()),
                "{reason}"
            );
        }
        assert_eq!(pulled(&pod(json!({}))), Ok(()));
    }

    #[test]
    fn any_container_counts_and_a_pod_that_goes_does_not() {
        let second =
            json!({"containerStatuses": [waits("ContainerCreating"), waits("ImagePullBackOff")]});
        assert!(pulled(&pod(second)).is_err());
        let at_once =
            json!({"containerStatuses": [waits("ErrImagePull"), waits("ImagePullBackOff")]});
        assert_eq!(pulled(&pod(at_once)), Ok(()));
        let init = json!({"initContainerStatuses": [waits("InvalidImageName")], "containerStatuses": [waits("PodInitializing")]});
        let mut pod = pod(init);
        assert!(pulled(&pod).is_err());
        pod.value_mut()["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert_eq!(pulled(&pod), Ok(()));
    }
}
