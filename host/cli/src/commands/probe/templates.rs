//! The files of a new project. Sources are the smallest probe's own, which the tests build and run, so a new project starts
//! from something that works; what differs for a project of its own lies in `sdk/templates`.

use crate::args::LangArg;

/// One file of a project.
pub(crate) struct Template {
    /// Where it goes, below the folder of the project.
    pub(crate) path: &'static str,
    /// Its text before anything is filled in.
    pub(crate) text: &'static str,
}

macro_rules! root {
    ($path:literal) => {
        include_str!(concat!("../../../../../", $path))
    };
}

const RUST: &[Template] = &[
    Template {
        path: "Cargo.toml",
        text: root!("sdk/templates/rust/Cargo.toml.tmpl"),
    },
    Template {
        path: "README.md",
        text: root!("sdk/templates/rust/README.md.tmpl"),
    },
    Template {
        path: "build.rs",
        text: root!("examples/smallest-probe/rust/build.rs"),
    },
    Template {
        path: "probe.toml",
        text: root!("examples/smallest-probe/rust/probe.toml"),
    },
    Template {
        path: "src/lib.rs",
        text: root!("examples/smallest-probe/rust/src/lib.rs"),
    },
    Template {
        path: ".gitignore",
        text: root!("examples/smallest-probe/rust/.gitignore"),
    },
];

const PYTHON: &[Template] = &[
    Template {
        path: "README.md",
        text: root!("sdk/templates/python/README.md.tmpl"),
    },
    Template {
        path: "app.py",
        text: root!("examples/smallest-probe/python/app.py"),
    },
    Template {
        path: "karat_probe.py",
        text: root!("sdk/python/karat_probe.py"),
    },
    Template {
        path: "probe.toml",
        text: root!("examples/smallest-probe/python/probe.toml"),
    },
    Template {
        path: "requirements.txt",
        text: root!("examples/smallest-probe/python/requirements.txt"),
    },
    Template {
        path: ".gitignore",
        text: root!("examples/smallest-probe/python/.gitignore"),
    },
];

const JS: &[Template] = &[
    Template {
        path: "README.md",
        text: root!("sdk/templates/js/README.md.tmpl"),
    },
    Template {
        path: "app.js",
        text: root!("examples/smallest-probe/js/app.js"),
    },
    Template {
        path: "karat-probe.js",
        text: root!("sdk/js/karat-probe.js"),
    },
    Template {
        path: "package.json",
        text: root!("examples/smallest-probe/js/package.json"),
    },
    Template {
        path: "probe.toml",
        text: root!("examples/smallest-probe/js/probe.toml"),
    },
    Template {
        path: ".gitignore",
        text: root!("examples/smallest-probe/js/.gitignore"),
    },
];

/// The files for a language.
pub(crate) fn of(language: LangArg) -> &'static [Template] {
    match language {
        LangArg::Rust => RUST,
        LangArg::Python => PYTHON,
        LangArg::Js => JS,
    }
}

/// The id that stands in the files and becomes the project's own.
pub(crate) fn id_of(language: LangArg) -> &'static str {
    match language {
        LangArg::Rust => "smallest-probe",
        LangArg::Python => "smallest-probe-py",
        LangArg::Js => "smallest-probe-js",
    }
}
