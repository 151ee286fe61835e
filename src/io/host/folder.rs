//! A folder of generated files: names and contents in, files out.
//!
//! Knows nothing of what the files are for.
//!
//! Invariant: an error names the file or folder that it is about.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// A file or folder that can't be written.
#[derive(Debug, Error)]
#[error("cannot write {}: {cause}; name a folder that this user may write to", path.display())]
pub struct FolderError {
    path: PathBuf,
    cause: io::Error,
}

/// Writes the files, which have these names, into the folder, and makes the folder if there is
/// none. Files of the same names are overwritten.
///
/// # Errors
/// The first file or folder that can't be written.
pub fn write_files(folder: &Path, files: &[(String, Vec<u8>)]) -> Result<(), FolderError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        |cause| FolderError { path, cause }
    };
    fs::create_dir_all(folder).map_err(failed(folder))?;
    for (name, contents) in files {
        let path = folder.join(name);
        fs::write(&path, contents).map_err(failed(&path))?;
    }
    Ok(())
}
