//! The list of kill points, shared with the tests: they include this file, for they link nothing of the program.

/// Makes the type, and for tests the list: a point that nobody crosses is never constructed, which the compiler refuses.
macro_rules! points {
    ($($variant:ident $name:literal $then:literal)*) => {
        /// A place between two system calls.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Point {
            $(#[doc = $then] $variant,)*
        }

        #[cfg_attr(not(any(debug_assertions, test)), expect(dead_code, reason = "a release build knows no points"))]
        impl Point {
            /// What it is called in logs and tables.
            pub fn name(self) -> &'static str {
                match self {
                    $(Point::$variant => $name,)*
                }
            }
        }

        #[cfg(test)]
        impl Point {
            /// All of them.
            pub const ALL: &[Point] = &[$(Point::$variant,)*];

            /// What is so when a process dies here.
            pub fn then(self) -> &'static str {
                match self {
                    $(Point::$variant => $then,)*
                }
            }
        }
    };
}

points! {
    FolderMade "folder.made" "a folder, with 0700 less the umask"
    FolderModeSet "folder.mode-set" "a folder with 0700; its name may be lost with the power"
    FolderSynced "folder.synced" "the folder is durable"

    DraftCreated "draft.created" "an empty temporary file, 0600"
    DraftModeSet "draft.mode-set" "an empty temporary file with the mode of the file to be"
    DraftHalfWritten "draft.half-written" "half of the content in a temporary file"
    DraftWritten "draft.written" "the content in a temporary file, not durable"
    DraftSynced "draft.synced" "the content in a temporary file, durable"
    DraftRenamed "draft.renamed" "the new file in the place of the old one; the name may be lost with the power"
    DraftLinked "draft.linked" "the new file under its name and the temporary one"
    DraftRemoved "draft.removed" "the new file; the temporary name is gone"
    ReplaceSynced "replace.synced" "the new file, durable"

    AppendCreated "append.created" "an empty file, 0600"
    AppendMade "append.made" "an empty file with its mode, durable"
    AppendHalfWritten "append.half-written" "half of a line"
    AppendWritten "append.written" "the line, not durable"
    AppendSynced "append.synced" "the line, durable"

    RemoveDone "remove.done" "the file is gone; it may come back with a power loss"
    RemoveSynced "remove.synced" "the file is gone for good"

    StoreLockOpened "store.lock-opened" "the store's lock file is there, not locked"
    StoreLocked "store.locked" "the store's lock was held, and is free with the death"
    StoreCompared "store.compared" "the same; the object has the version that was asked for"
    StoreReplaced "store.replaced" "the new object, durable; the lock is free with the death"
    StoreReleased "store.released" "the new object; the answer is lost"
    StoreCreated "store.created" "the new object, durable; the answer is lost"
    StoreDeleted "store.deleted" "the object is gone; it may come back with a power loss"
    StoreDeleteSynced "store.delete-synced" "the object is gone for good; the answer is lost"

    JobFolderMade "job.folder-made" "the folder of the job's records"
    JobLocked "job.locked" "the job's lock was held, and is free with the death"
    JobCleared "job.cleared" "the records of the run before are gone"
    JobBegun "job.begun" "which run it is and what it executes, durable; nothing runs"
    JobReleased "job.released" "the same; the lock is free for the wrapper"
    JobLaunched "job.launched" "the wrapper starts and will run the program, with or without an agent"
    JobConfirmed "job.confirmed" "the wrapper holds the job's lock"
    JobForgotten "job.forgotten" "the job's records are gone"

    WrapperStarted "wrapper.started" "the wrapper died before it took the lock; nothing runs"
    WrapperLocked "wrapper.locked" "the wrapper died with the lock; nothing runs"
    WrapperOutputOpened "wrapper.output-opened" "the wrapper died; the file for the output is there; nothing runs"
    WrapperChildStarted "wrapper.child-started" "the wrapper died; the program runs, and its pid is noted nowhere"
    WrapperChildNoted "wrapper.child-noted" "the wrapper died; the program runs, and its pid is noted"
    WrapperChildEnded "wrapper.child-ended" "the wrapper died; the program has ended, and nobody noted how"
    WrapperEndNoted "wrapper.end-noted" "the wrapper died; how the program ended is noted"

    StateFolderMade "state.folder-made" "the state directory, 0700"
    StateLockOpened "state.lock-opened" "the lock file of the state directory, not locked"
    StateLocked "state.locked" "the lock was held, and is free with the death; the file names an earlier process"
    StateLockEmptied "state.lock-emptied" "the lock file is empty"
    StateLockNamed "state.lock-named" "the lock file names a process that is dead"
}
