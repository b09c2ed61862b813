//! Row after row of a large `.npy` file, without ever holding more than one row.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use anyhow::{Context, Result, bail};
use narrows::Feature;

use crate::files::npy::{Description, from_element_bytes};

/// A `.npy` file whose first axis counts rows that are read one at a time.
pub struct NpyRows {
    file: BufReader<File>,
    description: Description,
    start: u64,
    buffer: Vec<u8>,
}

impl NpyRows {
    /// Opens a file and checks that its length is what its header says.
    pub fn open(path: &Path) -> Result<NpyRows> {
        let open = || -> Result<NpyRows> {
            let mut file = BufReader::new(File::open(path)?);
            let description = Description::read(&mut file)?;
            if description.shape.is_empty() {
                bail!("it holds a single number, not rows");
            }
            if description.fortran {
                bail!("it is in Fortran order: save it with numpy.ascontiguousarray(array)");
            }
            let start = file.stream_position()?;
            let length = file.get_ref().metadata()?.len();
            let needed = start + description.bytes()? as u64;
            if length != needed {
                bail!("it has {length} bytes, its header asks for {needed}");
            }
            Ok(NpyRows { file, description, start, buffer: Vec::new() })
        };
        open().with_context(|| format!("cannot read {}", path.display()))
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.description.shape[0]
    }

    /// Shape of one row.
    pub fn row_shape(&self) -> &[usize] {
        &self.description.shape[1..]
    }

    /// Reads one row and gives it this shape, which must have as many elements.
    pub fn row(&mut self, row: usize, shape: &[usize]) -> Result<Feature> {
        let elements: usize = self.row_shape().iter().product();
        let bytes = elements * self.description.dtype.size();
        self.buffer.resize(bytes, 0);
        self.file.seek(SeekFrom::Start(self.start + row as u64 * bytes as u64))?;
        self.file.read_exact(&mut self.buffer).context("the file became shorter while it was read")?;
        from_element_bytes(self.description.dtype, shape, &self.buffer)
    }
}
