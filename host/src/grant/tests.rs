use super::*;
use crate::manifest::{Budget, FileError, NamespaceLine, PodSecurity};
use crate::model::Reach;

fn line(
    group: &str,
    resources: &[&str],
    verbs: &[&str],
    scope: Scope,
    names: &[&str],
) -> PermissionLine {
    let list = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
    PermissionLine {
        api_groups: vec![group.to_owned()],
        resources: list(resources),
        verbs: list(verbs),
        scope,
        names: list(names),
        non_resource: Vec::new(),
        proxy: ProxyLine::default(),
        optional: false,
        why: "because".into(),
        line: 7,
    }
}

fn manifest(permissions: Vec<PermissionLine>) -> Manifest {
    Manifest {
        id: "probe".into(),
        version: "0.1.0".into(),
        title: "t".into(),
        claim: "c".into(),
        misleads: "m".into(),
        contract: "0.1.0-dev.1".into(),
        requirements: vec![],
        reach: Reach::Sandbox,
        capabilities: vec![],
        permissions,
        namespaces: vec![NamespaceLine {
            alias: "main".into(),
            pod_security: PodSecurity::Restricted,
            pods: 5,
        }],
        images: vec![],
        snapshots: vec![],
        leases: vec![],
        settings: Default::default(),
        budget: Budget::default(),
        cases: vec![],
    }
}

fn request(verb: &str, group: &str, resource: &str, namespace: &str, name: &str) -> Access {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    Access::Resource(ResourceAccess {
        verb: verb.into(),
        group: group.into(),
        version: "v1".into(),
        resource: resource.into(),
        subresource: subresource.into(),
        namespace: namespace.into(),
        name: name.into(),
        path: String::new(),
    })
}

const SANDBOX: &str = "karat-abcdefgh-probe-main";

fn effective(asked: Vec<PermissionLine>, grants: &str) -> Effective {
    let manifest = manifest(asked);
    Effective::new(
        &manifest,
        &Grants::parse(grants, "grants.toml").unwrap(),
        [SANDBOX],
    )
}

fn pods(scope: Scope) -> Vec<PermissionLine> {
    vec![line(
        "",
        &["pods", "pods/log"],
        &["get", "list", "create"],
        scope,
        &[],
    )]
}

#[test]
fn nothing_is_allowed_by_default() {
    let all = manifest(pods(Scope::Cluster));
    for effective in [
        Effective::new(&all, &Grants::none(), [SANDBOX]),
        Effective::new(&manifest(vec![]), &Grants::all_asked(&all), [SANDBOX]),
        Effective::new(
            &all,
            &Grants::all_asked(&Manifest {
                id: "other".into(),
                ..all.clone()
            }),
            [SANDBOX],
        ),
    ] {
        assert!(
            effective
                .allows(&request("get", "", "pods", SANDBOX, "x"))
                .is_err()
        );
        assert!(effective.rules().is_empty());
        assert!(effective.allows(&Access::Discovery).is_ok());
    }
}

#[test]
fn scopes_mean_what_they_say() {
    let allows = |scope: Scope, namespace: &str| {
        let manifest = manifest(pods(scope));
        Effective::new(&manifest, &Grants::all_asked(&manifest), [SANDBOX])
            .allows(&request("list", "", "pods", namespace, ""))
            .is_ok()
    };
    let named = || Scope::Namespace("tenant".into());
    for (scope, namespace, expected) in [
        (Scope::Sandbox, SANDBOX, true),
        (Scope::Sandbox, "tenant", false),
        (Scope::Sandbox, "karat-abcdefgh-probe-other", false),
        (Scope::Sandbox, "", false),
        (named(), "tenant", true),
        (named(), SANDBOX, false),
        (named(), "", false),
        (Scope::Cluster, SANDBOX, true),
        (Scope::Cluster, "tenant", true),
        (Scope::Cluster, "", true),
    ] {
        assert_eq!(
            allows(scope.clone(), namespace),
            expected,
            "{scope:?} {namespace}"
        );
    }
}

#[test]
fn a_grant_narrows_and_never_widens() {
    let grant = |scope: &str, more: &str| {
        format!(
            "[[grant]]\nprobe = \"probe\"\napi-groups = [\"\"]\nresources = [\"pods\"]\nverbs = [\"get\"]\nscope = {scope}\n{more}"
        )
    };
    let get = |effective: &Effective, namespace: &str, name: &str| {
        effective
            .allows(&request("get", "", "pods", namespace, name))
            .is_ok()
    };
    let narrowed = effective(pods(Scope::Cluster), &grant("\"sandbox\"", ""));
    assert!(get(&narrowed, SANDBOX, "x"));
    assert!(!get(&narrowed, "tenant", "x"));
    assert!(
        narrowed
            .allows(&request("get", "", "pods/log", SANDBOX, "x"))
            .is_err()
    );
    assert!(
        narrowed
            .allows(&request("list", "", "pods", SANDBOX, ""))
            .is_err()
    );

    let wide = effective(pods(Scope::Sandbox), &grant("\"cluster\"", ""));
    assert!(get(&wide, SANDBOX, "x"));
    assert!(!get(&wide, "tenant", "x"));

    let named = effective(
        pods(Scope::Cluster),
        &grant("{ namespace = \"tenant\" }", "names = [\"x\"]"),
    );
    assert!(get(&named, "tenant", "x"));
    assert!(!get(&named, "tenant", "y"));
    assert!(!get(&named, SANDBOX, "x"));

    // A named namespace is not the sandbox, even under the sandbox's own name.
    let odd = effective(
        pods(Scope::Sandbox),
        &grant(&format!("{{ namespace = \"{SANDBOX}\" }}"), ""),
    );
    assert!(!get(&odd, SANDBOX, "x"));
}

#[test]
fn names_open_single_objects_only() {
    let asked = vec![line(
        "",
        &["configmaps"],
        &[
            "get",
            "list",
            "watch",
            "create",
            "delete",
            "deletecollection",
        ],
        Scope::Sandbox,
        &["a", "b"],
    )];
    let manifest = manifest(asked);
    let effective = Effective::new(&manifest, &Grants::all_asked(&manifest), [SANDBOX]);
    for (verb, name, expected) in [
        ("get", "a", true),
        ("delete", "b", true),
        ("get", "c", false),
        ("list", "", false),
        ("watch", "", false),
        ("create", "a", false),
        ("deletecollection", "", false),
    ] {
        let answer = effective.allows(&request(verb, "", "configmaps", SANDBOX, name));
        assert_eq!(answer.is_ok(), expected, "{verb} {name}");
    }
    let refusal = effective
        .allows(&request("list", "", "configmaps", SANDBOX, ""))
        .unwrap_err();
    assert!(
        refusal
            .message
            .starts_with("a line with names does not open `list`"),
        "{refusal}"
    );
}

#[test]
fn a_subresource_is_asked_for_by_itself() {
    let manifest = manifest(vec![line(
        "apps",
        &["deployments"],
        &["patch"],
        Scope::Sandbox,
        &[],
    )]);
    let effective = Effective::new(&manifest, &Grants::all_asked(&manifest), [SANDBOX]);
    assert!(
        effective
            .allows(&request("patch", "apps", "deployments", SANDBOX, "x"))
            .is_ok()
    );
    assert!(
        effective
            .allows(&request("patch", "apps", "deployments/scale", SANDBOX, "x"))
            .is_err()
    );
    assert!(
        effective
            .allows(&request("patch", "", "deployments", SANDBOX, "x"))
            .is_err()
    );
}

#[test]
fn a_refusal_names_the_file_and_gives_a_line_that_helps() {
    let denied = effective(vec![], "");
    let access = request("create", "apps", "deployments/scale", SANDBOX, "x");
    let refusal = denied.allows(&access).unwrap_err();
    assert_eq!(
        refusal.to_string(),
        format!(
            "create deployments.apps/scale in namespace {SANDBOX} is not asked for; to open it, add to probe.toml:\n\
             [[permissions]]\napi-groups = [\"apps\"]\nresources = [\"deployments/scale\"]\nverbs = [\"create\"]\nscope = \"sandbox\"\nwhy = \"…\""
        )
    );

    // What is asked but not granted is opened by exactly the line that the refusal gives.
    let asked = vec![line(
        "apps",
        &["deployments/scale"],
        &["create"],
        Scope::Cluster,
        &[],
    )];
    for namespace in [SANDBOX, "tenant", ""] {
        let access = request("create", "apps", "deployments/scale", namespace, "x");
        let refusal = effective(asked.clone(), "").allows(&access).unwrap_err();
        let remedy = refusal.remedy.unwrap();
        assert_eq!(remedy.file, "the grants file");
        assert_eq!(
            effective(asked.clone(), &remedy.line).allows(&access),
            Ok(())
        );
    }
    let path = Access::NonResource {
        path: "/readyz".into(),
    };
    let asked = vec![PermissionLine {
        non_resource: vec!["/readyz".into()],
        api_groups: vec![],
        ..line("", &[], &[], Scope::Cluster, &[])
    }];
    let refusal = effective(asked.clone(), "").allows(&path).unwrap_err();
    assert_eq!(
        effective(asked, &refusal.remedy.unwrap().line).allows(&path),
        Ok(())
    );
    assert!(
        denied
            .allows(&path)
            .unwrap_err()
            .to_string()
            .contains("non-resource = [\"/readyz\"]")
    );
}

#[test]
fn the_plan_shows_what_is_missing_and_its_paste_grants_it() {
    let manifest = manifest(vec![
        line(
            "",
            &["pods", "configmaps"],
            &["get", "create"],
            Scope::Sandbox,
            &[],
        ),
        line("", &["nodes"], &["get", "list"], Scope::Cluster, &["n1"]),
        PermissionLine {
            non_resource: vec!["/version".into()],
            api_groups: vec![],
            ..line("", &[], &[], Scope::Cluster, &[])
        },
    ]);
    let grants = Grants::parse(
        "[[grant]]\nprobe = \"*\"\napi-groups = [\"\"]\nresources = [\"pods\"]\nverbs = [\"*\"]\n",
        "g",
    )
    .unwrap();
    let lines = grants.required_lines(&manifest);
    assert_eq!(
        lines[0].missing,
        ["get configmaps (sandbox)", "create configmaps (sandbox)"]
    );
    assert_eq!(
        lines[1].missing,
        [
            "get nodes named n1 (cluster)",
            "list nodes named n1 (cluster)"
        ]
    );
    assert_eq!(lines[2].missing, ["get /version"]);
    assert!(lines.iter().all(|line| !line.granted));
    let paste: Vec<_> = lines.iter().map(|line| line.paste.clone()).collect();
    let pasted = Grants::parse(&paste.join("\n\n"), "g").unwrap();
    assert!(
        pasted
            .required_lines(&manifest)
            .iter()
            .all(|line| line.granted)
    );
    let accepted = Grants::parse("[[grant]]\nprobe = \"probe\"\naccept-asked = true", "g").unwrap();
    assert!(
        accepted
            .required_lines(&manifest)
            .iter()
            .all(|line| line.granted)
    );
}

#[test]
fn the_digest_follows_the_meaning_and_not_the_writing() {
    let one = vec![line(
        "",
        &["pods", "pods/log"],
        &["get", "list", "create"],
        Scope::Sandbox,
        &[],
    )];
    let same = vec![
        line(
            "",
            &["pods/log"],
            &["list", "get", "create"],
            Scope::Sandbox,
            &[],
        ),
        line(
            "",
            &["pods"],
            &["create", "list", "get"],
            Scope::Sandbox,
            &[],
        ),
    ];
    let digest = |asked: &[PermissionLine], sandbox: &str| {
        let manifest = manifest(asked.to_vec());
        Effective::new(&manifest, &Grants::all_asked(&manifest), [sandbox]).digest()
    };
    assert_eq!(
        digest(&one, SANDBOX),
        digest(&same, "karat-bbbbbbbb-probe-main")
    );
    assert_ne!(
        digest(&one, SANDBOX),
        digest(&pods(Scope::Cluster), SANDBOX)
    );
    let plain = effective(one.clone(), "");
    let excepted = effective(one, "[[exception]]\nprobe = \"probe\"\nnode-ports = true");
    assert_ne!(plain.digest(), excepted.digest());
    assert!(excepted.exceptions().node_ports);
}

#[test]
fn mistakes_in_the_file_have_a_place() {
    for (text, expected) in [
        ("[[grant]]\nprobe = \"p\"\n", "g:1:1: a grant needs"),
        (
            "[[grant]]\nprobe = \"p\"\nverb = [\"get\"]",
            "g:3:1: unknown field `verb`",
        ),
        (
            "[[grant]]\nprobe = \"P!\"\nnon-resource = [\"/x\"]",
            "g:2:9: `P!` is no probe id",
        ),
        (
            "[[grant]]\nprobe = \"p\"\napi-groups = [\"\"]\nresources = [\"pods\"]\nverbs = [\"approve\"]",
            "g:5:10: verb `approve` is malformed",
        ),
        (
            "[[grant]]\nprobe = \"p\"\nnon-resource = [\"/a/../b\"]",
            "g:3:17: path `/a/../b` is malformed",
        ),
        (
            "[[grant]]\nprobe = \"*\"\naccept-asked = true",
            "g:2:9: `*` is no probe id",
        ),
        (
            "[[grant]]\nprobe = \"p\"\naccept-asked = true\nverbs = [\"get\"]",
            "g:1:1: `accept-asked` grants all",
        ),
        (
            "[[exception]]\nprobe = \"*\"\nnode-ports = true",
            "g:2:9: `*` is no probe id",
        ),
        (
            "[[exception]]\nprobe = \"p\"",
            "g:1:1: the exception opens nothing",
        ),
        (
            "[[exception]]\nprobe = \"p\"\ngateways = [\"x\"]",
            "g:3:13: gateway `x` is malformed",
        ),
        (
            "[[grant]]\nprobe = \"p\"\nnon-resource = [\"/x\"]\nscope = \"sandbox\"",
            "g:1:1: a line with `non-resource`",
        ),
    ] {
        let error = Grants::parse(text, "g").unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    assert!(matches!(
        Grants::parse(&" ".repeat(MAX_GRANTS_SIZE + 1), "g"),
        Err(FileError::TooLarge { .. })
    ));
}
