//! Where the demo keeps its files: a directory of its own that goes when it goes, or one that was named and stays.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::random;

/// A directory, as an operator's would look: `.runbook/` with the configuration and the pending approvals.
#[derive(Debug)]
pub struct Place {
    dir: PathBuf,
    /// Whether it goes when this is dropped.
    temporary: bool,
}

impl Place {
    /// A new private directory below this one, which is removed on drop.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn temporary(below: &Path) -> io::Result<Self> {
        let dir = below.join(format!("runbook-demo-{}", random::letters(8)?));
        private().create(&dir)?;
        let place = Self {
            dir,
            temporary: true,
        };
        private().create(place.dir.join(".runbook"))?;
        Ok(place)
    }

    /// This directory, which stays.
    ///
    /// # Errors
    /// It is not there and cannot be made; or it is in use by more than demos (`AlreadyExists`): what is pending there
    /// is for real people to decide.
    pub fn at(dir: &Path) -> io::Result<Self> {
        let place = Self {
            dir: dir.to_owned(),
            temporary: false,
        };
        private().recursive(true).create(dir)?;
        match private().create(dir.join(".runbook")) {
            Err(error) if !place.config().is_file() => Err(error),
            Ok(()) | Err(_) => Ok(place),
        }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The demo's configuration, which also says that this is a place of demos.
    pub fn config(&self) -> PathBuf {
        self.dir.join(".runbook/demo.yaml")
    }

    pub fn pending_dir(&self) -> PathBuf {
        self.dir.join(".runbook/pending-approvals")
    }

    /// Writes the configuration.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write(config: &Path, yaml: &str) -> io::Result<()> {
        fs::write(config, yaml)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.temporary {
            // What cannot be removed now stays until the system clears its temporary directory.
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

fn private() -> DirBuilder {
    let mut builder = DirBuilder::new();
    builder.mode(0o700);
    builder
}
