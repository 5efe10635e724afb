//! The manifest inside a component: custom section `karat:manifest` of the outermost component.
//!
//! There must be exactly one. A second one, or one inside a nested component or module, could show one manifest to a
//! reviewer and another to the engine, so both are refused rather than ranked. The section's text is not read here;
//! that is [`super::Manifest::parse`].

use super::MAX_MANIFEST_SIZE;
use crate::names::MANIFEST_SECTION;
use std::ops::Range;
use wasm_encoder::{ComponentSection as _, CustomSection};
use wasmparser::{BinaryReaderError, Parser, Payload};

/// Why the manifest of a component cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SectionError {
    /// The bytes are not WebAssembly at all.
    #[error("not WebAssembly: the bytes do not start with `\\0asm`; give a component")]
    NotWebAssembly,
    /// The bytes are a core module.
    #[error("a core module, not a component; wrap it with `karat probe build`")]
    CoreModule,
    /// The binary breaks off or has no structure.
    #[error("the component's sections cannot be read; build it again")]
    Malformed(#[source] BinaryReaderError),
    /// There is no manifest.
    #[error("the component has no section `karat:manifest`; build it with `karat probe build`")]
    Missing,
    /// There are two manifests, and nothing says which one counts.
    #[error(
        "the component has two sections `karat:manifest`, the second at byte {second}; build it again from its core module"
    )]
    Duplicate {
        /// Offset of the second section in bytes.
        second: usize,
    },
    /// A nested component or module carries a manifest.
    #[error(
        "a module or component inside the component has its own section `karat:manifest`, at byte {at}; only the outermost component may carry one"
    )]
    Nested {
        /// Offset of the section in bytes.
        at: usize,
    },
    /// The manifest is not text.
    #[error("section `karat:manifest` is not UTF-8; build the component again")]
    NotText(#[source] std::str::Utf8Error),
    /// The manifest is larger than any manifest needs to be.
    #[error(
        "section `karat:manifest` has {size} bytes and at most {MAX_MANIFEST_SIZE} are read; shorten the manifest"
    )]
    TooLarge {
        /// Size in bytes.
        size: usize,
    },
}

/// Returns the component with this text as its manifest, in place of the one it had. Equal input gives equal bytes, and
/// embedding twice is the same as once.
///
/// # Errors
/// [`SectionError::TooLarge`], bytes that are no component, or a manifest in a nested module or component.
pub fn embed(component: &[u8], toml: &str) -> Result<Vec<u8>, SectionError> {
    if toml.len() > MAX_MANIFEST_SIZE {
        return Err(SectionError::TooLarge { size: toml.len() });
    }
    let mut out = Vec::with_capacity(component.len() + toml.len() + 32);
    let mut copied = 0;
    for section in find(component)? {
        out.extend_from_slice(&component[copied..section.whole.start]);
        copied = section.whole.end;
    }
    out.extend_from_slice(&component[copied..]);
    CustomSection {
        name: MANIFEST_SECTION.into(),
        data: toml.as_bytes().into(),
    }
    .append_to_component(&mut out);
    Ok(out)
}

/// Returns the text of the one manifest.
///
/// # Errors
/// Every [`SectionError`].
pub fn extract(component: &[u8]) -> Result<&str, SectionError> {
    let sections = find(component)?;
    let section = match sections.as_slice() {
        [] => return Err(SectionError::Missing),
        [one] => one,
        [_, second, ..] => {
            return Err(SectionError::Duplicate {
                second: second.whole.start,
            });
        }
    };
    if section.data.len() > MAX_MANIFEST_SIZE {
        return Err(SectionError::TooLarge {
            size: section.data.len(),
        });
    }
    std::str::from_utf8(section.data).map_err(SectionError::NotText)
}

struct Found<'a> {
    /// Bytes of the section with its id and length.
    whole: Range<usize>,
    data: &'a [u8],
}

/// All manifest sections at the outermost level; an error if one lies deeper.
fn find(component: &[u8]) -> Result<Vec<Found<'_>>, SectionError> {
    if !component.starts_with(b"\0asm") {
        return Err(SectionError::NotWebAssembly);
    }
    if !Parser::is_component(component) {
        return Err(SectionError::CoreModule);
    }
    let mut found = Vec::new();
    let mut depth = 0usize;
    // Where the next section of the outermost component begins: after the eight bytes of magic and version.
    let mut begin = 8;
    for payload in Parser::new(0).parse_all(component) {
        let payload = payload.map_err(SectionError::Malformed)?;
        let outermost = depth == 0;
        match &payload {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::CustomSection(section) if section.name() == MANIFEST_SECTION => {
                if !outermost {
                    return Err(SectionError::Nested {
                        at: offset(section.data_offset()),
                    });
                }
                found.push(Found {
                    whole: begin..offset(section.range().end),
                    data: section.data(),
                });
            }
            _ => {}
        }
        // The range of a nested module or component is known when it begins; what lies inside moves nothing.
        if outermost && let Some((_, range)) = payload.as_section() {
            begin = offset(range.end);
        }
    }
    Ok(found)
}

/// Offsets lie inside a slice, so they fit.
fn offset(at: u64) -> usize {
    usize::try_from(at).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasm_encoder::{Component, Module, ModuleSection, RawSection};

    fn custom(name: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        CustomSection {
            name: name.into(),
            data: data.into(),
        }
        .append_to_component(&mut bytes);
        bytes
    }

    /// A component with one core module, and custom sections of other names around it.
    fn component() -> Vec<u8> {
        let mut component = Component::new();
        component.section(&CustomSection {
            name: "before".into(),
            data: b"1".as_slice().into(),
        });
        component.section(&ModuleSection(&Module::new()));
        component.section(&CustomSection {
            name: "after".into(),
            data: b"2".as_slice().into(),
        });
        component.finish()
    }

    #[test]
    fn a_manifest_is_embedded_replaced_and_read() {
        let plain = component();
        let first = embed(&plain, "one = 1").unwrap();
        assert_eq!(extract(&first).unwrap(), "one = 1");
        assert!(first.starts_with(&plain));
        assert_eq!(embed(&first, "one = 1").unwrap(), first);

        let second = embed(&first, "größer = 2").unwrap();
        assert_eq!(extract(&second).unwrap(), "größer = 2");
        assert_eq!(second, embed(&plain, "größer = 2").unwrap());
        wasmparser::validate(&second).unwrap();
    }

    #[test]
    fn a_section_in_the_middle_is_replaced_without_touching_its_neighbours() {
        let mut bytes = Component::new().finish();
        bytes.extend(custom("before", b"1"));
        let mut rest = custom("after", b"2");
        rest.extend_from_slice(&component()[8..]);
        let mut expected = bytes.clone();
        // A length with needless bytes is valid, and must be cut out whole.
        bytes.extend_from_slice(&[0, 0x93, 0x80, 0x00, 14]);
        bytes.extend_from_slice(b"karat:manifest");
        bytes.extend_from_slice(b"old!");
        bytes.extend_from_slice(&rest);
        expected.extend_from_slice(&rest);
        expected.extend(custom(MANIFEST_SECTION, b"new"));
        assert_eq!(extract(&bytes).unwrap(), "old!");
        assert_eq!(embed(&bytes, "new").unwrap(), expected);
    }

    #[test]
    fn two_manifests_are_refused_and_none_is_missing() {
        let mut bytes = component();
        assert!(matches!(extract(&bytes), Err(SectionError::Missing)));
        bytes.extend(custom(MANIFEST_SECTION, b"a"));
        let second = bytes.len();
        bytes.extend(custom(MANIFEST_SECTION, b"a"));
        assert!(
            matches!(extract(&bytes), Err(SectionError::Duplicate { second: at }) if at == second)
        );
    }

    #[test]
    fn a_manifest_inside_a_module_or_component_is_refused() {
        let mut module = Module::new();
        module.section(&CustomSection {
            name: MANIFEST_SECTION.into(),
            data: b"a".as_slice().into(),
        });
        let mut with_module = Component::new();
        with_module.section(&ModuleSection(&module));

        let mut inner = Component::new().finish();
        inner.extend(custom(MANIFEST_SECTION, b"a"));
        let mut with_component = Component::new();
        with_component.section(&RawSection {
            id: 4,
            data: &inner,
        });
        let mut deeper = Component::new();
        deeper.section(&RawSection {
            id: 4,
            data: with_module.as_slice(),
        });

        for bytes in [
            with_module.clone().finish(),
            with_component.finish(),
            deeper.finish(),
        ] {
            // Also when the outermost component has a manifest of its own.
            let mut both = bytes.clone();
            both.extend(custom(MANIFEST_SECTION, b"b"));
            for bytes in [bytes, both] {
                let Err(SectionError::Nested { at }) = extract(&bytes) else {
                    panic!("accepted")
                };
                assert_eq!(bytes[at], b'a');
                assert!(matches!(
                    embed(&bytes, "x"),
                    Err(SectionError::Nested { .. })
                ));
            }
        }
    }

    #[test]
    fn what_is_no_component_is_refused() {
        assert!(matches!(extract(b""), Err(SectionError::NotWebAssembly)));
        assert!(matches!(
            extract(b"#!/bin/sh"),
            Err(SectionError::NotWebAssembly)
        ));
        assert!(matches!(
            extract(&Module::new().finish()),
            Err(SectionError::CoreModule)
        ));
        let whole = embed(&component(), "a = 1").unwrap();
        for cut in 9..whole.len() {
            // Cut between two sections it is a component without manifest; cut anywhere else it is none.
            assert!(
                matches!(
                    extract(&whole[..cut]),
                    Err(SectionError::Malformed(_) | SectionError::Missing)
                ),
                "{cut}"
            );
        }
    }

    #[test]
    fn size_and_encoding_are_checked() {
        let large = "#".repeat(MAX_MANIFEST_SIZE + 1);
        assert!(matches!(
            embed(&component(), &large),
            Err(SectionError::TooLarge { .. })
        ));
        for (data, utf8) in [(large.as_bytes(), true), (b"\xff".as_slice(), false)] {
            let mut bytes = component();
            bytes.extend(custom(MANIFEST_SECTION, data));
            match extract(&bytes) {
                Err(SectionError::TooLarge { size }) => {
                    assert_eq!((size, utf8), (large.len(), true))
                }
                Err(SectionError::NotText(_)) => assert!(!utf8),
                other => panic!("{other:?}"),
            }
        }
    }
}
