//! How the workload asks to be read. All ways make somebody else's program fetch it, so the operator of Karat must have opened them.

use crate::manifest::settings;
use crate::stub::{LABEL, PATH, PORT, PORT_NAME, Stub};
use karat_sdk::discovery::Discovery;
use karat_sdk::kube::PatchKind;
use karat_sdk::monitoring::{self, Endpoint, Way};
use karat_sdk::{Result, Target, json};

/// How, and what else is worth saying of it.
pub(crate) struct Asked {
    /// In the reader's words.
    pub(crate) by: &'static str,
    /// What the platform wanted to see on it.
    pub(crate) labels: String,
}

/// Asks in the way that fits the cluster, or that the operator named.
pub(crate) fn ask(discovery: &Discovery, stub: &Stub) -> Result<Asked> {
    let wanted = settings::ASK_BY.get()?;
    let way = Way::choose(discovery, wanted.as_deref())?;
    if way.is_annotations() {
        return annotate(stub);
    }
    way.create(&Endpoint {
        namespace: &stub.namespace,
        name: &stub.name,
        label: LABEL,
        port: PORT_NAME,
        path: PATH,
    })?;
    Ok(Asked {
        by: way.by(),
        labels: way.labels(),
    })
}

fn annotate(stub: &Stub) -> Result<Asked> {
    let body = json!({"metadata": {"annotations": monitoring::annotations(PORT, PATH)}});
    // Some look for them on pods, some on Services.
    for resource in ["pods", "services"] {
        Target::new("v1", resource)
            .in_namespace(&stub.namespace)
            .patch(&stub.name, PatchKind::Merge, &body)?;
    }
    Ok(Asked {
        by: "the annotations prometheus.io/scrape, port and path on the pod and its Service",
        labels: String::new(),
    })
}
