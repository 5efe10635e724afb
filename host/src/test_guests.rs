//! Small components for unit tests, made from the embedded contract and a few lines of WAT.

use crate::contract::list::WIT;
use crate::manifest::section;
use wit_component::{ComponentEncoder, StringEncoding, dummy_module, embed_component_metadata};
use wit_parser::{LiftLowerAbi, ManglingAndAbi, Resolve, SourceMap};

/// A manifest that asks for the given interfaces.
pub(crate) fn manifest(capabilities: &[&str], more: &str) -> String {
    format!(
        r#"id = "small"
version = "0.1.0"
title = "Small"
claim = "It runs."
misleads = "It does nothing."
contract = "0.1.0-dev.1"
requirements = []
reach = "read"
capabilities = {capabilities:?}
{more}
cases = [{{ id = "runs", kind = "observation", required = "always", claim = "it runs", expected = "it does" }}]
"#
    )
}

/// What a component under test is made of.
pub(crate) struct Guest<'a> {
    /// Body of the world `t`.
    pub(crate) world: &'a str,
    /// Core module; none makes one whose functions trap.
    pub(crate) core: Option<&'a str>,
    /// Changes to the contract's text: in this file, this, by that.
    pub(crate) edit: Option<(&'a str, &'a str, &'a str)>,
    /// Other version of the package.
    pub(crate) version: &'a str,
}

impl Default for Guest<'_> {
    fn default() -> Self {
        Guest {
            world: "export guest;",
            core: None,
            edit: None,
            version: "0.1.0-dev.1",
        }
    }
}

impl Guest<'_> {
    /// The component without a manifest.
    pub(crate) fn bare(&self) -> Vec<u8> {
        let mut sources = SourceMap::default();
        for (name, text) in WIT {
            let mut text = text.replace("0.1.0-dev.1;", &format!("{};", self.version));
            if let Some((file, from, to)) = self.edit
                && file == *name
            {
                assert!(text.contains(from), "{from} is not in {name}");
                text = text.replace(from, to);
            }
            sources.push_str(name, text);
        }
        sources.push_str("t.wit", format!("world t {{ {} }}", self.world));
        let group = sources.parse().map_err(|(_, error)| error).unwrap();
        let mut resolve = Resolve::default();
        let package = resolve.push_group(group).unwrap();
        let world = resolve.packages[package].worlds["t"];
        let mut core = match self.core {
            Some(text) => wat::parse_str(text).unwrap(),
            None => dummy_module(&resolve, world, ManglingAndAbi::Legacy(LiftLowerAbi::Sync)),
        };
        embed_component_metadata(&mut core, &resolve, world, StringEncoding::UTF8, false).unwrap();
        ComponentEncoder::default()
            .module(&core)
            .unwrap()
            .validate(true)
            .encode()
            .unwrap()
    }

    /// The component with this manifest.
    pub(crate) fn with(&self, manifest: &str) -> Vec<u8> {
        section::embed(&self.bare(), manifest).unwrap()
    }
}

/// A core module whose `check` runs this body, which leaves an i32: the address of the result. Address 16 holds `ok`.
pub(crate) fn core(imports: &str, body: &str) -> String {
    format!(
        r#"(module
            {imports}
            (memory (export "memory") 1)
            (table $t 1 funcref)
            (global $next (mut i32) (i32.const 4096))
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
                (local $at i32)
                (local.set $at (global.get $next))
                (global.set $next (i32.add (global.get $next) (i32.and (i32.add (local.get 3) (i32.const 7)) (i32.const -8))))
                (local.get $at))
            (func $check (export "karat:probe/guest@0.1.0-dev.1#check") (result i32)
                {body})
        )"#
    )
}
