//! The programs of others through pairs of which one proxy is a process of its own, both ways round ([`mixed`]).

use crate::mixed;

/// Ours in the test command: the clients of gRPC. With somebody else's proxy everything that goes through a pair.
#[test]
fn what_others_say_passes_a_pair_with_another_program() {
    if std::env::var_os(mixed::VARIABLE).is_none() {
        return mixed::run(&["grpc::"], &[]);
    }
    mixed::run(&["websocket::", "grpc::", "every_case_through_the_pair"], &[]);
}
