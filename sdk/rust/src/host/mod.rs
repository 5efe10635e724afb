//! The one place where the SDK reaches outside: the contract's imports inside a component, a fake cluster natively.
//!
//! Both modules have the same functions. They are modules, not a trait object, because a table of functions would keep every
//! import of the contract alive: a component shall import what its code calls and nothing else.

#[cfg(target_arch = "wasm32")]
mod wasm;
#[cfg(target_arch = "wasm32")]
pub(crate) use wasm::*;

#[cfg(not(target_arch = "wasm32"))]
mod native;
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use native::*;
