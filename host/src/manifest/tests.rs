//! Table of what a manifest may and may not say, each refusal with its exact place and its message.

use super::*;

/// A manifest that uses everything once. Tests replace one piece of it at a time.
const WHOLE: &str = r#"
id = "dra-support"
version = "0.1.0"
title = "DRA"
claim = "the claim"
misleads = "how it misleads"
contract = "0.1.0-dev.1"
requirements = ["dra_support"]
reach = "cluster-objects"
capabilities = ["kube-read", "kube-write", "leases"]

[[permissions]]
api-groups = [""]
resources = ["pods"]
verbs = ["get", "list", "create"]
scope = "sandbox"
why = "to see pods"

[[permissions]]
api-groups = ["resource.k8s.io"]
resources = ["deviceclasses"]
verbs = ["get", "list", "create", "delete"]
scope = "cluster"
optional = true
why = "to create a class"

[[permissions]]
non-resource = ["/version"]
why = "to name the version"

[[permissions]]
api-groups = ["apps"]
resources = ["deployments"]
verbs = ["get"]
scope = { namespace = "kube-system" }
names = ["coredns"]
why = "to see DNS"

[[namespaces]]
alias = "main"
pod-security = "baseline"
pods = 5

[[images]]
name = "tool"
reference = "registry.k8s.io/busybox@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

[[snapshots]]
api-version = "resource.k8s.io/v1"
resource = "deviceclasses"
keep = ["/spec"]

[[leases]]
name = "gpu"
lock = "pool/gpu"
for = "60s"

[[leases]]
name = "gang"
nodes = "2..16"
units = 1
alone = true
for = "95s"

[settings.wait]
type = "duration"
default = "90s"
help = "how long to wait"

[settings.mode]
type = "one-of"
values = ["fast", "slow"]
default = "fast"
help = "which way"

[settings.tries]
type = "integer"
default = 3
help = "how often"

[settings.deep]
type = "bool"
default = false
help = "whether to dig"

[settings.size]
type = "quantity"
default = "2Gi"
help = "how large"

[settings.token]
type = "secret"
help = "for the endpoint"

[budget]
wall = "2m"
cpu = "5s"
memory = "32Mi"
calls = 100
seen = "1Mi"
usual = "40s"

[[cases]]
id = "served"
kind = "observation"
required = "always"
claim = "v1 is served"
effect = ["get /version"]

[[cases]]
id = "created"
kind = "positive"
required = "always"
claim = "a class is created"
expected = "201"
needs = ["served"]
effect = ["create deviceclasses.resource.k8s.io"]

[[cases]]
id = "refused"
kind = "negative"
required = "if-opened"
claim = "a bad class is refused"
effect = ["create deviceclasses"]
controls = [{ case = "created", same = ["object"], alive = true }]
quiet = "30s"
pending = true
"#;

fn parse(text: &str) -> Result<Manifest, ManifestError> {
    Manifest::parse(text, "probe.toml")
}

/// Line and column of a byte, counted from 1.
fn place(text: &str, at: usize) -> (usize, usize) {
    let line = 1 + text[..at].matches('\n').count();
    let column = 1 + text[..at].chars().rev().take_while(|c| *c != '\n').count();
    (line, column)
}

#[test]
fn everything_is_read() {
    let manifest = parse(WHOLE).unwrap();
    assert_eq!(manifest.id, "dra-support");
    assert_eq!(manifest.reach, Reach::ClusterObjects);
    assert_eq!(manifest.permissions.len(), 4);
    assert_eq!(manifest.permissions[0].line, 12);
    assert_eq!(manifest.permissions[1].line, 19);
    assert!(manifest.permissions[1].optional);
    assert_eq!(manifest.permissions[2].non_resource, ["/version"]);
    assert_eq!(
        manifest.permissions[3].scope,
        Scope::Namespace("kube-system".to_owned())
    );
    let main = NamespaceLine {
        alias: "main".to_owned(),
        pod_security: PodSecurity::Baseline,
        pods: 5,
    };
    assert_eq!(manifest.namespaces, [main]);
    assert_eq!(manifest.snapshots[0].keep, ["/spec"]);
    let lock = Wish::Lock {
        name: "pool/gpu".to_owned(),
        shared: false,
    };
    assert_eq!(manifest.leases[0].wish, lock);
    let gang = NodesWish {
        least: 2,
        most: 16,
        units: UnitsWish::Count(1),
        alone: true,
        containers: false,
    };
    assert_eq!(manifest.leases[1].wish, Wish::Nodes(gang));
    assert_eq!(manifest.leases[1].usual, Duration::from_secs(95));
    let words = vec!["fast".to_owned(), "slow".to_owned()];
    assert_eq!(manifest.settings["mode"].kind, SettingKind::OneOf(words));
    let defaults: BTreeMap<_, _> = manifest
        .settings
        .iter()
        .map(|(key, setting)| (key.as_str(), setting.default.as_deref()))
        .collect();
    let expected = [
        ("deep", Some("false")),
        ("mode", Some("fast")),
        ("size", Some("2Gi")),
        ("token", None),
        ("tries", Some("3")),
        ("wait", Some("90s")),
    ];
    assert_eq!(defaults, expected.into());
    let budget = Budget {
        wall: Duration::from_secs(120),
        cpu: Duration::from_secs(5),
        memory_bytes: 32 << 20,
        calls: 100,
        seen_bytes: 1 << 20,
        usual: Some(Duration::from_secs(40)),
    };
    assert_eq!(manifest.budget, budget);
    assert_eq!(manifest.cases[1].needs, ["served"]);
    assert_eq!(
        manifest.cases[1].line,
        place(WHOLE, WHOLE.find("[[cases]]\nid = \"created\"").unwrap()).0
    );
    assert_eq!(manifest.cases[2].quiet, Some(Duration::from_secs(30)));
    assert!(manifest.cases[2].pending);
    let control = Control {
        case: "created".to_owned(),
        same: vec!["object".to_owned()],
        alive: true,
    };
    assert_eq!(manifest.cases[2].controls, [control]);
}

#[test]
fn the_smallest_manifest_has_the_documented_defaults() {
    let manifest = parse(
        r#"
            id = "vendor.example/smallest"
            version = "1.0.0-rc.1"
            title = "t"
            claim = "c"
            misleads = "m"
            contract = "0.1.0-dev.1"
            requirements = []
            cases = [
              { id = "a", kind = "observation", required = "always", claim = "c" },
            ]
        "#,
    )
    .unwrap();
    assert_eq!(manifest.reach, Reach::Sandbox);
    assert_eq!(manifest.budget, Budget::default());
    assert_eq!(manifest.cases[0].line, 10);
    assert_eq!(manifest.cases[0].expected, "");
}

/// Each row: a piece of [`WHOLE`], what replaces it, where the message must point, and a part of the message. The place
/// is a text within the replacement, or within the whole after `^`; `@` is the beginning of the replacement.
#[rustfmt::skip]
const REFUSALS: &[(&str, &str, &str, &str)] = &[
    // TOML and keys.
    (r#"title = "DRA""#, r#"title = "#, "\n^claim", "string values must be quoted"),
    (r#"title = "DRA""#, r#"title = 5"#, "5", "invalid type: integer `5`, expected a string"),
    (r#"title = "DRA""#, r#"titel = "DRA""#, "@", "unknown field `titel`, expected one of"),
    (r#"title = "DRA""#, "title = \"a\"\ntitle = \"b\"", "title = \"b\"", "duplicate key"),
    (r#"optional = true"#, r#"optinal = true"#, "@", "unknown field `optinal`"),
    (r#"pods = 5"#, r#"pods = -1"#, "-1", "invalid value"),
    (r#"pods = 5"#, r#"pod = 5"#, "@", "unknown field `pod`"),
    (r#"calls = 100"#, r#"call = 100"#, "@", "unknown field `call`"),
    (r#"alive = true }"#, r#"live = true }"#, "@", "unknown field `live`"),
    (r#"scope = "cluster""#, r#"scope = "world""#, r#""world""#, "unknown variant `world`"),
    (r#"keep = ["/spec"]"#, r#"fields = "x""#, "@", "unknown field `fields`"),
    (r#"lock = "pool/gpu""#, "lock = \"pool/gpu\"\nunit = 2", "unit", "unknown field `unit`"),
    (r#"name = "tool""#, "name = \"tool\"\ntag = \"x\"", "tag", "unknown field `tag`"),
    (r#"default = 3"#, "default = 3\nmin = 1", "min", "unknown field `min`"),
    (r#"help = "how often""#, "", "^[settings.tries]", "missing field `help`"),
    // Identity.
    (r#""0.1.0-dev.1""#, r#""0.2.0""#, "@", "contract `0.2.0` is not served by this release, which serves `0.1.0-dev.1`"),
    (r#""dra-support""#, r#""dra_support""#, "@", "id `dra_support` is malformed; write a DNS label of at most 40"),
    (r#""dra-support""#, r#""../x""#, "@", "id `../x` is malformed"),
    (r#""dra-support""#, r#""vendor/x""#, "@", "id `vendor/x` is malformed"),
    (r#""dra-support""#, r#""abcdefghijabcdefghijabcdefghijabcdefghijk""#, "@", "at most 40"),
    (r#""dra-support""#, r#""averylongvendorname.example/abcdefghijabcdefghijabcdefghijabcdef""#, "@", "at most 63"),
    (r#"version = "0.1.0""#, r#"version = "0.1""#, r#""0.1""#, "version `0.1` is malformed; write a semantic version"),
    (r#"version = "0.1.0""#, r#"version = "0.1.0+b""#, r#""0.1.0+b""#, "without build metadata"),
    (r#""DRA""#, r#"" ""#, "@", "the title is empty"),
    (r#""DRA""#, r#""a\nb""#, "@", "the title holds control characters"),
    (r#""the claim""#, r#""\u001b[2J""#, "@", "the claim holds control characters"),
    (r#"["dra_support"]"#, r#"["DRA"]"#, r#""DRA""#, "requirement `DRA` is malformed"),
    (r#"["dra_support"]"#, r#"["a", "a"]"#, r#""a"]"#, "requirement `a` is there twice, first in line 8"),
    (r#""cluster-objects""#, r#""all""#, "@", "reach `all` is not known; write `read`, `sandbox`, `cluster-objects` or `disruptive`"),
    // Capabilities.
    (r#""kube-write""#, r#""kube-wrote""#, "@", "capability `kube-wrote` is not known; write `kube-read`, `kube-write`"),
    (r#""kube-write""#, r#""kube-write", "run""#, r#""run""#, "capability `run` is always there; leave it out"),
    (r#""kube-write""#, r#""kube-write", "kube-read""#, r#""kube-read""#, "capability `kube-read` is there twice"),
    (r#", "kube-write""#, "", r#"^"create"]"#, "`create pods` needs capability `kube-write`"),
    (r#""kube-read", "#, "", r#"^"get", "list""#, "`get pods` needs capability `kube-read`"),
    (r#""cluster-objects""#, r#""read""#, r#"^"kube-write""#, "reach `read` writes nothing"),
    // Permissions.
    ("\"create\"]\nscope", "\"make\"]\nscope", "@", "verb `make` is not known; write `get`, `list`"),
    ("\"create\"]\nscope", "\"impersonate\"]\nscope", "@", "verb `impersonate` is not known"),
    ("\"create\"]\nscope", "\"get\"]\nscope", "@", "verb `get` is there twice"),
    (r#"api-groups = [""]"#, r#"api-groups = ["*"]"#, r#""*""#, "there is no wildcard"),
    (r#"api-groups = [""]"#, r#"api-groups = []"#, "^[[permissions]]", "the permission has no `api-groups`"),
    (r#"["pods"]"#, r#"["*"]"#, r#""*""#, "resource `*` is malformed"),
    (r#"["pods"]"#, r#"["pods/log"]"#, r#"^"get", "list""#, "`get pods/log` needs capability `pods`"),
    (r#"["pods"]"#, r#"["services/proxy"]"#, r#"^"get", "list""#, "`get services/proxy` needs capability `http` or `metrics`"),
    (r#"["coredns"]"#, r#"["../x"]"#, r#""../x""#, "name `../x` is malformed"),
    (r#"{ namespace = "kube-system" }"#, r#"{ namespace = "a/b" }"#, "@", "cannot be the name of a namespace"),
    (r#"["/version"]"#, r#"["/a/../b"]"#, r#""/a/../b""#, "path `/a/../b` is malformed"),
    (r#"["/version"]"#, r#"["version"]"#, r#""version""#, "path `version` is malformed"),
    (r#"["/version"]"#, "[\"/version\"]\nverbs = [\"create\"]", r#""create""#, "can only be read"),
    (r#"["/version"]"#, "[\"/version\"]\nresources = [\"pods\"]", r#""pods""#, "make two lines"),
    (r#"["/version"]"#, "[\"/version\"]\nscope = \"cluster\"", r#""cluster""#, "make two lines"),
    (r#""to see pods""#, r#""""#, "@", "`why` is empty"),
    (r#""cluster-objects""#, r#""sandbox""#, r#"^"create", "delete""#, "`create` outside the sandbox needs reach `cluster-objects`"),
    ("[[namespaces]]\nalias = \"main\"\npod-security = \"baseline\"\npods = 5", "", r#"^"sandbox""#, "scope `sandbox` means the namespaces of the manifest"),
    // Namespaces, images.
    (r#""main""#, r#""mainmain""#, "@", "alias `mainmain` is malformed; write a DNS label of at most 7"),
    (r#"pods = 5"#, "pods = 5\n[[namespaces]]\nalias = \"main\"", r#""main""#, "namespace `main` is there twice, first in line"),
    (r#""baseline""#, r#""open""#, "@", "Pod Security level `open` is not known; write `restricted`, `baseline` or `privileged`"),
    (r#"pods = 5"#, r#"pods = 501"#, "501", "at most 500 pods"),
    (r#"@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"#, ":1.36", r#"^"registry.k8s.io"#, "a tag alone can change"),
    (r#""tool""#, r#""Tool""#, "@", "image name `Tool` is malformed"),
    (r#"name = "tool""#, "name = \"tool\"\nown = \"pause\"", r#""pause""#, "has `reference` or `own`, not both"),
    ("reference = \"registry.k8s.io/busybox@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"", "own = \"Tool\"", r#""Tool""#, "own image `Tool` is malformed"),
    ("reference = \"registry.k8s.io/busybox@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"", "", r#"^"tool""#, "the image comes from nowhere"),
    // Snapshots, leases.
    (r#""resource.k8s.io/v1""#, r#""resource.k8s.io""#, "@", "api-version `resource.k8s.io` is malformed"),
    (r#""resource.k8s.io/v1""#, r#""v1""#, "^\"deviceclasses\"\nkeep", "permission to `list` `deviceclasses` of group ``"),
    (r#"resource = "deviceclasses""#, r#"resource = "nodes""#, r#""nodes""#, "permission to `list` `nodes`"),
    (r#"["/spec"]"#, r#"["spec"]"#, r#""spec""#, "path `spec` is malformed"),
    (r#"keep = ["/spec"]"#, "[[snapshots]]\napi-version = \"resource.k8s.io/v1\"\nresource = \"deviceclasses\"", r#""deviceclasses""#, "two snapshots of `deviceclasses`"),
    (r#""pool/gpu""#, r#""gpu""#, "@", "lock `gpu` is malformed"),
    (r#"lock = "pool/gpu""#, "lock = \"pool/gpu\"\nunits = 2", "2", "`units` belongs to `nodes`"),
    (r#"lock = "pool/gpu""#, "lock = \"pool/gpu\"\nalone = true", "true", "`alone` belongs to `nodes`"),
    (r#"lock = "pool/gpu""#, "", r#"^"gpu""#, "the lease asks for nothing"),
    (r#"nodes = "2..16""#, "nodes = \"2\"\nlock = \"pool/gpu\"", "\"pool/gpu\"", "`nodes` or `lock`, not both"),
    (r#"alone = true"#, "shared = true", "true", "`shared` belongs to a lock"),
    (r#""2..16""#, r#""0""#, "@", "nodes `0` is malformed"),
    (r#""2..16""#, r#""3..2""#, "@", "nodes `3..2` is malformed"),
    (r#""2..16""#, r#""+2""#, "@", "nodes `+2` is malformed"),
    (r#""2..16""#, r#""1..1001""#, "@", "from 1 to 1000"),
    ("units = 1", "units = -1", "-1", "`units` is how many on each node"),
    ("units = 1", "units = \"some\"", "\"some\"", "`units` is how many on each node"),
    (r#"for = "95s""#, r#"for = "0s""#, r#""0s""#, "`for` must lie between 1s and 7200s"),
    (r#", "leases""#, "", r#"^"gpu""#, "a lease needs capability `leases`"),
    // Settings.
    (r#""bool""#, r#""boolean""#, "@", "type `boolean` is not known; write `string`, `bool`"),
    (r#"default = false"#, r#"default = "false""#, r#""false""#, "the default is no boolean"),
    (r#"default = 3"#, r#"default = "3""#, r#""3""#, "the default is no integer"),
    (r#"default = 3"#, r#"default = 3.5"#, "3.5", "the default is no integer"),
    (r#"default = "90s""#, r#"default = 90"#, "90", "the default is no text"),
    (r#""90s""#, r#""90""#, "@", "the default `90` does not fit the type; write a duration"),
    (r#""2Gi""#, r#""2gb""#, "@", "write a quantity"),
    (r#"default = "fast""#, r#"default = "faster""#, r#""faster""#, "write `fast` or `slow`"),
    (r#"values = ["fast", "slow"]"#, "", r#"^"one-of""#, "type `one-of` needs `values`"),
    (r#"["fast", "slow"]"#, "[]", "@", "`values` is empty"),
    (r#"["fast", "slow"]"#, r#"["fast", "fast"]"#, r#""fast"]"#, "value `fast` is there twice"),
    (r#"type = "secret""#, "type = \"secret\"\ndefault = \"x\"", r#""x""#, "a secret has no default"),
    (r#"type = "bool""#, "type = \"bool\"\nvalues = [\"a\"]", r#"["a"]"#, "only type `one-of` has `values`"),
    (r#"[settings.wait]"#, r#"[settings."wait!"]"#, r#""wait!""#, "setting `wait!` is malformed"),
    // Budget.
    (r#""2m""#, r#""2""#, "@", "budget `wall` `2` is malformed; write a duration"),
    (r#""2m""#, r#""9h""#, "@", "budget `wall` must lie between 1s and 7200s"),
    (r#""2m""#, r#""4s""#, r#"^"5s""#, "budget `cpu` exceeds `wall`, which is 4s"),
    (r#""5s""#, r#""1ms""#, "@", "budget `cpu` must lie between 100ms and 600s"),
    (r#""32Mi""#, r#""2Gi""#, "@", "budget `memory` must lie between 1048576 and 1073741824 bytes"),
    (r#"calls = 100"#, r#"calls = 0"#, "0", "budget `calls` must lie between 1 and 1000000"),
    (r#""1Mi""#, r#""1MB""#, "@", "write a number of bytes such as `64Mi`"),
    (r#""40s""#, r#""3m""#, "@", "budget `usual` exceeds `wall`, which is 120s"),
    // Cases.
    (r#"id = "served""#, r#"id = "Served""#, r#""Served""#, "case id `Served` is malformed"),
    (r#"id = "created""#, r#"id = "served""#, r#""served""#, "case `served` is there twice, first in line"),
    (r#""positive""#, r#""postive""#, "@", "kind `postive` is not known; write `observation`, `positive` or `negative`"),
    (r#""if-opened""#, r#""sometimes""#, "@", "`required` `sometimes` is not known; write `always`, `if-opened` or `optional`"),
    (r#"["served"]"#, r#"["servd"]"#, r#""servd""#, "`needs` names `servd`, which is no case"),
    (r#"["served"]"#, r#"["created"]"#, r#""created""#, "`needs` names the case itself"),
    (r#"["served"]"#, r#"["served", "served"]"#, r#""served"]"#, "`needs` `served` is there twice"),
    (r#"claim = "v1 is served""#, "claim = \"c\"\nneeds = [\"refused\"]", "^\"created\", same", "wait for each other: created → served → refused → created"),
    (r#"effect = ["create deviceclasses.resource.k8s.io"]"#, "", r#"^"positive""#, "a positive case needs an `effect`"),
    (r#""create deviceclasses.resource.k8s.io""#, r#""crate deviceclasses""#, "@", "verb `crate` is not known"),
    (r#""create deviceclasses.resource.k8s.io""#, r#""watch deviceclasses""#, "@", "effect `watch deviceclasses` matches no permission"),
    (r#""create deviceclasses.resource.k8s.io""#, r#""create deviceclasses.example.com""#, "@", "matches no permission"),
    (r#""get /version""#, r#""get /readyz""#, "@", "matches no permission"),
    (r#"controls = [{ case = "created", same = ["object"], alive = true }]"#, "", r#"^"negative""#, "a negative case needs `controls`"),
    (r#"case = "created""#, r#"case = "creatd""#, r#""creatd""#, "control names `creatd`, which is no case"),
    (r#"case = "created""#, r#"case = "served""#, r#""served""#, "control `served` is not a positive case"),
    (r#"["object"]"#, r#"["pod"]"#, r#""pod""#, "fact `pod` is not known; write `node`, `image`"),
    (r#""negative""#, r#""positive""#, "^{ case", "only a negative case has `controls`"),
    (r#"expected = "201""#, r#"quiet = "5s""#, r#""5s""#, "only a negative case has `quiet`"),
    (r#""30s""#, r#""30""#, "@", "`quiet` `30` is malformed"),
    (r#""30s""#, r#""0s""#, "@", "`quiet` must lie between 1s and 3600s"),
];

#[test]
fn every_rule_refuses_with_place_and_message() {
    let mut wrong = Vec::new();
    for (old, new, pointer, message) in REFUSALS {
        assert!(
            WHOLE.contains(old),
            "the table names `{old}`, which the manifest lacks"
        );
        let text = WHOLE.replacen(old, new, 1);
        let begin = WHOLE.find(old).unwrap();
        let at = match pointer.split_once('^') {
            Some((_, anchor)) => text.find(anchor),
            None if *pointer == "@" => Some(begin),
            None => new.find(pointer).map(|at| begin + at),
        };
        let expected = place(
            &text,
            at.unwrap_or_else(|| panic!("no `{pointer}` for `{new}`")),
        );
        // A line break is where a value is missing.
        let expected = if pointer.starts_with('\n') {
            place(&text, begin + new.len())
        } else {
            expected
        };
        match parse(&text) {
            Ok(_) => wrong.push(format!("accepted `{new}` for `{old}`")),
            Err(error) => {
                let problem = error.problem().unwrap();
                let tidy = !problem.message.contains('\n') && !problem.message.ends_with('.');
                if !(problem.message.contains(message)
                    && tidy
                    && (problem.line, problem.column) == expected)
                {
                    wrong.push(format!("expected {expected:?} and `{message}`: {error}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_missing_key_is_named() {
    for key in [
        "id",
        "version",
        "title",
        "claim",
        "misleads",
        "contract",
        "requirements",
    ] {
        let line = WHOLE
            .lines()
            .find(|line| line.starts_with(&format!("{key} =")))
            .unwrap();
        let error = parse(&WHOLE.replacen(line, "", 1)).unwrap_err();
        assert!(matches!(error, ManifestError::Syntax(_)));
        assert!(
            error
                .to_string()
                .contains(&format!("missing field `{key}`")),
            "{error}"
        );
    }
    let cases = WHOLE.find("[[cases]]").unwrap();
    assert!(
        parse(&WHOLE[..cases])
            .unwrap_err()
            .to_string()
            .contains("missing field `cases`")
    );
}

/// The part of [`WHOLE`] before its tables, so that a test can add its own cases.
fn head() -> String {
    WHOLE[..WHOLE.find("[[permissions]]").unwrap()].to_owned()
}

#[test]
fn something_must_decide() {
    let error = parse(&format!("{}\ncases = []", head())).unwrap_err();
    assert!(error.to_string().contains("there are no cases"), "{error}");
    let case = r#"{ id = "a", kind = "observation", required = "optional", claim = "c" }"#;
    let error = parse(&format!("{}\ncases = [{case}]", head())).unwrap_err();
    assert!(
        error.to_string().contains("every case is `optional`"),
        "{error}"
    );
}

#[test]
fn the_contract_is_judged_before_keys_that_a_later_one_may_have() {
    let text = WHOLE.replacen("0.1.0-dev.1\"", "0.9.0\"\nflavour = \"new\"", 1);
    let error = parse(&text).unwrap_err();
    assert!(
        matches!(&error, ManifestError::Contract(problem) if problem.line == 7),
        "{error}"
    );
}

#[test]
fn size_and_depth_are_limited() {
    let large = format!("{WHOLE}\n#{}", "x".repeat(MAX_MANIFEST_SIZE));
    assert!(matches!(parse(&large), Err(ManifestError::TooLarge { .. })));
    let deep = format!("x = {}", "[".repeat(100_000));
    assert!(matches!(parse(&deep), Err(ManifestError::Syntax(_))));
}

#[test]
fn long_chains_of_cases_are_no_circle_and_no_stack_overflow() {
    let chain = |last: &str| {
        let mut text = format!("{}\ncases = [\n", head());
        for i in 0..2000 {
            let needs = if i + 1 < 2000 {
                format!("\"c{}\"", i + 1)
            } else {
                last.to_owned()
            };
            text.push_str(&format!(
                "{{ id = \"c{i}\", kind = \"observation\", required = \"always\", claim = \"c\", needs = [{needs}] }},\n"
            ));
        }
        text + "]"
    };
    assert_eq!(parse(&chain("")).unwrap().cases.len(), 2000);
    let error = parse(&chain("\"c0\"")).unwrap_err().to_string();
    assert!(error.contains("wait for each other"), "{error}");
    assert!(error.len() < 1000, "{}", error.len());
}

#[test]
fn a_full_message_shows_the_line_with_a_mark() {
    let error = parse(&WHOLE.replacen("\"kube-write\"", "\"kube-wrote\"", 1)).unwrap_err();
    let text = error.to_string();
    let expected = "10 | capabilities = [\"kube-read\", \"kube-wrote\", \"leases\"]\n   |                              ^";
    assert!(
        text.starts_with("probe.toml:10:30: capability `kube-wrote`"),
        "{text}"
    );
    assert!(text.ends_with(expected), "{text}");
}
