//! journal/memory
pub struct MemoryJournal;
