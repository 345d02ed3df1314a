//! Any bytes as the scheduler's replies, and as its requests, which the demo scheduler reads; as an external provider's, too.
#![no_main]

use enlist::wire::provider::{
    CreateRequest, Created, DeleteRequest, Deleted, InstancesPage, InstancesRequest, ProviderReply,
};
use enlist::wire::scheduler::{ListReply, ListRequest, RegisterReply, RegisterRequest, UnregisterReply, UnregisterRequest};
use libfuzzer_sys::fuzz_target;

macro_rules! read_back {
    ($message:ident, $bytes:expr) => {
        if let Ok(message) = $message::decode($bytes) {
            let again = $message::decode(&message.encode()).expect("what was written is read");
            assert_eq!(again.encode(), message.encode());
        }
    };
}

type CreateReply = ProviderReply<Created>;
type DeleteReply = ProviderReply<Deleted>;
type InstancesReply = ProviderReply<InstancesPage>;

fuzz_target!(|bytes: &[u8]| {
    read_back!(RegisterReply, bytes);
    read_back!(UnregisterReply, bytes);
    read_back!(ListReply, bytes);
    read_back!(RegisterRequest, bytes);
    read_back!(UnregisterRequest, bytes);
    read_back!(ListRequest, bytes);
    read_back!(CreateRequest, bytes);
    read_back!(DeleteRequest, bytes);
    read_back!(InstancesRequest, bytes);
    read_back!(CreateReply, bytes);
    read_back!(DeleteReply, bytes);
    read_back!(InstancesReply, bytes);
});
