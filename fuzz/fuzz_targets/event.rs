//! Any bytes as an event of a worker or a pool: what is read is written and read back the same.
#![no_main]

use enlist::domain::Prefix;
use enlist::wire::event;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let prefix = Prefix::new("enlist").expect("a valid prefix");
    if let Ok(worker) = event::decode(bytes) {
        let again = event::decode(&event::encode(&prefix, &worker, None)).expect("what was written is read");
        assert_eq!(again, worker);
    }
    if let Ok(record) = event::decode_pool(bytes) {
        let again = event::decode_pool(&event::encode_pool(&prefix, &record, None)).expect("what was written is read");
        assert_eq!(again, record);
    }
});
