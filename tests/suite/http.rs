//! The HTTP room through its router and through sockets.

mod bad_input;
mod crowd;
mod endings;
mod fold;
mod limits;
mod promise;
pub mod rig;
mod routes;
mod sockets;
mod tenants;
mod wire;
