//! What the author of a probe writes against.
//!
//! A probe is a type with one method and one line:
//!
//! ```no_run
//! use karat_sdk::{Probe, Result, kube::Query};
//!
//! # mod manifest { pub mod cases { pub const NAMESPACES: karat_sdk::CaseId = karat_sdk::CaseId::from_manifest("namespaces"); } }
//! # const _: &str = stringify!(
//! karat_sdk::manifest!();
//! # );
//!
//! struct Smallest;
//!
//! impl Probe for Smallest {
//!     fn check() -> Result<()> {
//!         let case = manifest::cases::NAMESPACES.open("")?;
//!         let found = Query::new("v1", "namespaces").get("kube-system")?;
//!         case.observe("uid of kube-system", found.uid());
//!         case.pass()
//!     }
//! }
//!
//! karat_sdk::probe!(Smallest);
//! ```
//!
//! Compiled for `wasm32-unknown-unknown`, its calls go through the contract to the door of the engine. Compiled natively, as
//! unit tests do, the same calls go to a fake cluster in memory. There is no other way out of a probe.
//!
//! Read in this order: [`kube`], [`case`], [`wait`], [`pods`], [`http`], [`metrics`], [`monitoring`], [`leases`], [`discovery`], [`inventory`], [`build`], [`admission`], [`testing`].

pub mod admission;
#[cfg(target_arch = "wasm32")]
mod bindings;
pub mod build;
pub mod case;
pub mod clock;
pub mod discovery;
pub mod error;
mod host;
pub mod http;
pub mod inventory;
pub mod kube;
pub mod leases;
pub mod log;
pub mod metrics;
pub mod monitoring;
pub mod pods;
pub mod run;
pub mod settings;
#[cfg(not(target_arch = "wasm32"))]
pub mod testing;
pub mod wait;

pub use case::{Case, CaseId, Conclusion, Reason, not_tried};
pub use error::{Answer, Error, Result};
pub use kube::{Object, Query, Target};
pub use serde_json::{Value, json};

/// What a probe does.
pub trait Probe {
    /// Runs the probe once. An error means that it could not work: it turns a pass into `unknown` and is never a verdict.
    ///
    /// # Errors
    /// Whatever the probe cannot put into the conclusion of a case.
    fn check() -> Result<()>;
}

/// Exports a [`Probe`]. Natively it only checks that the type is one.
#[macro_export]
macro_rules! probe {
    ($probe:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            struct Exported;

            impl $crate::__private::Guest for Exported {
                fn check() -> ::core::result::Result<(), ::std::string::String> {
                    $crate::__private::check::<$probe>()
                }
            }

    $crate::__private::export!(Exported with_types_in $crate::__private);
        };
        #[cfg(not(target_arch = "wasm32"))]
        #[doc = "Runs the probe; natively only inside of `karat_sdk::testing`."]
        #[doc = ""]
        #[doc = "# Errors"]
        #[doc = "Those of the probe."]
        pub fn check() -> $crate::Result<()> {
            <$probe as $crate::Probe>::check()
        }
    };
}

/// Declares the module `manifest`: constants of what `probe.toml` declares, made by `karat_sdk_build::manifest()` in the
/// build script. `manifest::cases::…`, `manifest::settings::…`, and the text as `manifest::TEXT`.
#[macro_export]
macro_rules! manifest {
    () => {
        mod manifest {
            include!(concat!(env!("OUT_DIR"), "/manifest.rs"));
        }
    };
}

/// What the macros need. Not for probes.
#[doc(hidden)]
#[cfg(target_arch = "wasm32")]
pub mod __private {
    pub use crate::bindings::export;
    pub use crate::bindings::exports;
    pub use crate::bindings::exports::karat::probe::guest::Guest;
    use std::sync::Once;

    /// Runs the probe. A panic becomes a trap, which loses its message; the hook writes it to the log first.
    pub fn check<P: crate::Probe>() -> Result<(), String> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            std::panic::set_hook(Box::new(|info| crate::log::error(info.to_string())));
        });
        P::check().map_err(|error| error.to_string())
    }
}
