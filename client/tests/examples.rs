//! The job files of the examples are read as jobs.

use std::fs;
use std::path::Path;

use partita_client::jobfile::{JobFile, ModuleSource};

#[test]
fn the_job_files_of_the_examples_are_jobs() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let directories = fs::read_dir(&examples).expect("there are examples");
    let files: Vec<_> =
        directories.flatten().map(|entry| entry.path().join("job.toml")).filter(|path| path.is_file()).collect();
    assert!(!files.is_empty(), "no example has a job file");
    for path in files {
        let file = JobFile::read(&path).unwrap_or_else(|error| panic!("{error}"));
        for source in file.modules().values() {
            assert!(matches!(source, ModuleSource::Path(_)), "{}: an example brings its own modules", path.display());
        }
    }
}
