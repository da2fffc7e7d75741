//! ExternalWorkloads: servers of the mesh that are no pods, and the EndpointSlices by which Services lead to them (control plane 3.6, 6.7).
//!
//! ```text
//! object ─► spec (checked) ─► index
//! Events (Services, ExternalWorkloads, EndpointSlices of ours) ─► slices ─► Change ─► (control) whoever holds the lease writes it
//! ```

mod slices;
mod spec;

pub use slices::{Change, Slices};
pub(crate) use spec::{External, checked, is_ready, said_in_vain};
pub use spec::{ExternalWorkloadSpec, WorkloadIpSpec, WorkloadPortSpec, WorkloadTlsSpec};
