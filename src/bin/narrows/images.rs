//! Labelled images: a folder with a label file, or a sheet of tiles in memory.

use std::collections::HashMap;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use image::imageops::{self, FilterType};
use image::{ImageFormat, RgbImage};
use jpeg_decoder::PixelFormat;

use crate::output::note;

/// File name endings of images.
const ENDINGS: [&str; 4] = ["png", "jpg", "jpeg", "webp"];
/// Columns of a label file that may hold the class, the first that is there.
const LABEL_COLUMNS: [&str; 4] = ["imagenet_index0", "label", "class", "target"];

/// Images with labels, read one at a time from any thread.
pub trait Images: Sync {
    /// Number of images.
    fn len(&self) -> usize;
    /// Pixels of one image, of the size that the network wants.
    fn pixels(&self, i: usize) -> Result<RgbImage>;
    /// Class of one image.
    fn label(&self, i: usize) -> usize;
    /// Height and width of the images as the network gets them.
    fn size(&self) -> (usize, usize);
}

/// Rows of a label file to use: 1-based, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rows {
    first: usize,
    last: usize,
}

impl Rows {
    /// Parses `1-400`, or `7` for one row.
    pub fn parse(text: &str) -> Result<Rows, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let number = |text: &str| {
            let wanted = || format!("{text:?} is not a row number; write for example 1-400");
            text.trim().parse::<usize>().ok().filter(|&row| row > 0).ok_or_else(wanted)
        };
        let rows = Rows { first: number(first)?, last: number(last)? };
        if rows.first > rows.last {
            return Err(format!("rows {text}: the first is after the last"));
        }
        Ok(rows)
    }
}

impl Rows {
    /// True if two selections share a row; `None` selects all.
    pub fn overlap(a: Option<Rows>, b: Option<Rows>) -> bool {
        match (a, b) {
            (Some(a), Some(b)) => a.first <= b.last && b.first <= a.last,
            _ => true,
        }
    }
}

impl std::fmt::Display for Rows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// Images of a folder.
pub struct Folder {
    files: Vec<(PathBuf, usize)>,
    size: (usize, usize),
    resized: AtomicBool,
}

impl Folder {
    /// Opens a folder. With a label file: the images that it lists, in its order, only these rows.
    /// Without: all images by name, labelled 0.
    pub fn open(
        folder: &Path,
        labels: Option<&Path>,
        rows: Option<Rows>,
        size: Option<(usize, usize)>,
    ) -> Result<Folder> {
        let mut listed: Vec<PathBuf> = fs::read_dir(folder)
            .with_context(|| format!("cannot read the folder {}", folder.display()))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                let ending = path.extension().and_then(|ending| ending.to_str()).map(str::to_lowercase);
                ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str()))
            })
            .collect();
        if listed.is_empty() {
            bail!("no images ({}) in {}", ENDINGS.map(|e| format!(".{e}")).join(", "), folder.display());
        }
        listed.sort();
        let mut files = match labels {
            Some(path) => {
                let text =
                    fs::read_to_string(path).with_context(|| format!("cannot read the labels {}", path.display()))?;
                let labels = parse_labels(&text).with_context(|| format!("labels {}", path.display()))?;
                labels.into_iter().map(|(file, label)| (folder.join(file), label)).collect()
            }
            None => listed.into_iter().map(|path| (path, 0)).collect::<Vec<_>>(),
        };
        if let Some(rows) = rows {
            if rows.last > files.len() {
                bail!("rows {rows} are asked for, there are {}", files.len());
            }
            files.truncate(rows.last);
            files.drain(..rows.first - 1);
        }
        if let Some((missing, _)) = files.iter().find(|(path, _)| !path.is_file()) {
            bail!("the label file names {}, which is not there", missing.display());
        }
        let size = match size {
            Some(size) => size,
            None => {
                let unreadable = || format!("cannot read the image {}", files[0].0.display());
                let first = fs::read(&files[0].0).with_context(unreadable)?;
                let (width, height) = decode(&first).with_context(unreadable)?.dimensions();
                (height as usize, width as usize)
            }
        };
        Ok(Folder { files, size, resized: AtomicBool::new(false) })
    }
}

impl Images for Folder {
    fn len(&self) -> usize {
        self.files.len()
    }

    fn pixels(&self, i: usize) -> Result<RgbImage> {
        let path = &self.files[i].0;
        let unreadable = || format!("cannot read the image {}", path.display());
        let bytes = fs::read(path).with_context(unreadable)?;
        let image = decode(&bytes).with_context(unreadable)?;
        let (height, width) = self.size;
        let wanted = (width as u32, height as u32);
        if image.dimensions() == wanted {
            return Ok(image);
        }
        if !self.resized.swap(true, Ordering::Relaxed) {
            note(format!(
                "note: images are resized and centre-cropped to {width}x{height}, the input of the network \
                 (first: {}, {}x{})",
                path.display(),
                image.width(),
                image.height()
            ));
        }
        Ok(fit_size(&image, wanted))
    }

    fn label(&self, i: usize) -> usize {
        self.files[i].1
    }

    fn size(&self) -> (usize, usize) {
        self.size
    }
}

/// Most bytes of the pixels of an image: about 89 megapixels of RGB.
const MAX_PIXEL_BYTES: usize = 256 << 20;

/// Decodes a JPEG, PNG or WebP.
pub fn decode(bytes: &[u8]) -> Result<RgbImage> {
    if !bytes.starts_with(&[0xff, 0xd8]) {
        let mut reader = image::ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
        let mut limits = image::Limits::default();
        limits.max_alloc = Some(MAX_PIXEL_BYTES as u64);
        reader.limits(limits);
        return Ok(reader.decode()?.into_rgb8());
    }
    let mut decoder = jpeg_decoder::Decoder::new(bytes);
    decoder.set_max_decoding_buffer_size(MAX_PIXEL_BYTES);
    let mut pixels = decoder.decode()?;
    let info = decoder.info().context("a JPEG without a frame")?;
    match info.pixel_format {
        PixelFormat::RGB24 => {}
        PixelFormat::L8 => pixels = pixels.iter().flat_map(|&gray| [gray; 3]).collect(),
        other => bail!("a JPEG with {other:?} pixels, not RGB or gray"),
    }
    RgbImage::from_raw(u32::from(info.width), u32::from(info.height), pixels).context("a JPEG with pixels missing")
}

/// Decodes a JPEG, PNG or WebP of this size; another is refused before its pixels take memory. WebP goes through libwebp,
/// as in the other commands.
pub fn decode_sized(bytes: &[u8], wanted: (u32, u32)) -> Result<RgbImage> {
    let reader = image::ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
    let format = reader.format();
    let size = match format {
        Some(ImageFormat::Jpeg) => {
            let mut decoder = jpeg_decoder::Decoder::new(bytes);
            decoder.read_info()?;
            let info = decoder.info().context("a JPEG without a frame")?;
            (u32::from(info.width), u32::from(info.height))
        }
        Some(ImageFormat::Png | ImageFormat::WebP) => reader.into_dimensions()?,
        _ => bail!("it is no JPEG, PNG or WebP"),
    };
    if size != wanted {
        bail!("it is {}x{}, the network takes {}x{}", size.0, size.1, wanted.0, wanted.1);
    }
    let image = match format {
        Some(ImageFormat::WebP) => {
            let decoded = webp::Decoder::new(bytes).decode().context("it is no WebP that libwebp reads")?;
            let pixels = match decoded.is_alpha() {
                true => decoded.as_chunks::<4>().0.iter().flat_map(|&[r, g, b, _]| [r, g, b]).collect(),
                false => decoded.to_vec(),
            };
            RgbImage::from_raw(decoded.width(), decoded.height(), pixels).context("a WebP with pixels missing")?
        }
        _ => decode(bytes)?,
    };
    if image.dimensions() != wanted {
        bail!("its size is not what its header says");
    }
    Ok(image)
}

/// Resizes so that the shorter side fits, then cuts the centre out.
fn fit_size(image: &RgbImage, (width, height): (u32, u32)) -> RgbImage {
    let (own_width, own_height) = (f64::from(image.width()), f64::from(image.height()));
    let factor = (f64::from(width) / own_width).max(f64::from(height) / own_height);
    let scaled = |side: f64, least: u32| ((side * factor).round() as u32).max(least);
    let (new_width, new_height) = (scaled(own_width, width), scaled(own_height, height));
    let resized = imageops::resize(image, new_width, new_height, FilterType::CatmullRom);
    imageops::crop_imm(&resized, (new_width - width) / 2, (new_height - height) / 2, width, height).to_image()
}

/// A sheet of square tiles with one label each.
pub struct Sheet {
    image: RgbImage,
    labels: Vec<usize>,
    side: u32,
    /// Tiles before the first that is used.
    skip: usize,
}

impl Sheet {
    /// Opens a sheet from the bytes of an image; only these tiles of it.
    pub fn open(image: &[u8], labels: Vec<usize>, side: u32, rows: Option<Rows>) -> Result<Sheet> {
        let image = decode(image).context("the sheet of images")?;
        let mut sheet = Sheet { image, labels, side, skip: 0 };
        let tiles = (sheet.columns() * (sheet.image.height() / side)) as usize;
        if sheet.labels.len() > tiles {
            bail!("the sheet has {tiles} tiles of {side}x{side}, fewer than the {} labels", sheet.labels.len());
        }
        if let Some(rows) = rows {
            if rows.last > sheet.labels.len() {
                bail!("rows {rows} are asked for, there are {}", sheet.labels.len());
            }
            sheet.skip = rows.first - 1;
            sheet.labels.truncate(rows.last);
            sheet.labels.drain(..sheet.skip);
        }
        Ok(sheet)
    }

    fn columns(&self) -> u32 {
        self.image.width() / self.side
    }
}

impl Images for Sheet {
    fn len(&self) -> usize {
        self.labels.len()
    }

    fn pixels(&self, i: usize) -> Result<RgbImage> {
        let tile = (self.skip + i) as u32;
        let (row, column) = (tile / self.columns(), tile % self.columns());
        let side = self.side;
        Ok(imageops::crop_imm(&self.image, column * side, row * side, side, side).to_image())
    }

    fn label(&self, i: usize) -> usize {
        self.labels[i]
    }

    fn size(&self) -> (usize, usize) {
        (self.side as usize, self.side as usize)
    }
}

/// Classes of a sheet: one a line, in the order of its tiles.
pub fn sheet_labels(text: &str) -> Result<Vec<usize>> {
    let class = |(i, line): (usize, &str)| {
        let wanted = || format!("line {}: {line:?}; the labels of a sheet of tiles are one class index a line", i + 1);
        line.trim().parse().ok().with_context(wanted)
    };
    let labels: Vec<usize> = without_mark(text).trim_end().lines().enumerate().map(class).collect::<Result<_>>()?;
    if labels.is_empty() {
        bail!("it is empty");
    }
    Ok(labels)
}

/// Spreadsheets begin their files with a byte order mark.
fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// File names and classes of a label file: CSV with a header, or `file,class` lines without one.
fn parse_labels(text: &str) -> Result<Vec<(String, usize)>> {
    let mut lines = without_mark(text).lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).peekable();
    let first = fields(lines.peek().context("it is empty")?.1);
    let header: HashMap<&str, usize> = first.iter().enumerate().map(|(i, name)| (name.as_str(), i)).collect();
    let (file, label) = if let Some(&file) = header.get("file") {
        let label = LABEL_COLUMNS.iter().find_map(|name| header.get(name).copied());
        lines.next();
        if lines.peek().is_none() {
            bail!("no lines after the header");
        }
        (file, label.with_context(|| format!("its header has no column {}", LABEL_COLUMNS.join(" or ")))?)
    } else if first.len() == 2 && first[1].parse::<usize>().is_ok() {
        (0, 1)
    } else {
        bail!("its first line is neither a header with the columns file and label, nor `file,class`");
    };
    lines
        .map(|(number, line)| {
            let fields = fields(line);
            let class = fields.get(label).and_then(|class| class.parse().ok());
            let class = class.with_context(|| format!("line {}: no class index in {line:?}", number + 1))?;
            let name = fields.get(file).filter(|name| !name.is_empty());
            Ok((name.with_context(|| format!("line {}: no file name", number + 1))?.clone(), class))
        })
        .collect()
}

/// The fields of one CSV line, without the spaces around them; quotes may hold commas and doubled quotes.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    let mut characters = line.trim_end_matches('\r').chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' if quoted && characters.peek() == Some(&'"') => {
                fields.last_mut().expect("never empty").push('"');
                characters.next();
            }
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            other => fields.last_mut().expect("never empty").push(other),
        }
    }
    fields.iter().map(|field| field.trim().to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_files_with_and_without_a_header() {
        let wanted = vec![("a.png".to_string(), 3), ("b.png".to_string(), 4)];
        assert_eq!(parse_labels("file,label\na.png,3\nb.png,4\n").unwrap(), wanted);
        assert_eq!(parse_labels("a.png,3\r\n\r\nb.png,4").unwrap(), wanted);
        let quoted = "author,file,x,imagenet_index0\n\"Doe, \"\"J\"\"\",a.png,9,3\n,b.png,,4\n";
        assert_eq!(parse_labels(quoted).unwrap(), wanted);
        let spreadsheet = "\u{feff}file , class\r\n a.png , 3 \r\nb.png,4\r\n";
        assert_eq!(parse_labels(spreadsheet).unwrap(), wanted);
        for (bad, words) in [
            ("", "empty"),
            ("file,label", "no lines after the header"),
            ("file,label\n \n", "no lines after the header"),
            ("file,colour\na,1", "no column"),
            ("file,label\na.png,red", "line 2"),
            ("one column\n", "neither a header"),
        ] {
            let error = parse_labels(bad).unwrap_err().to_string();
            assert!(error.contains(words), "{bad:?}: {error}");
        }
    }

    #[test]
    fn labels_of_a_sheet_are_one_a_line() {
        assert_eq!(sheet_labels("\u{feff}3\r\n 4\n\n").unwrap(), [3, 4]);
        for (bad, words) in [("", "empty"), ("3\na.png,4\n", "line 2: \"a.png,4\""), ("3\n\n4\n", "line 2")] {
            let error = sheet_labels(bad).unwrap_err().to_string();
            assert!(error.contains(words), "{bad:?}: {error}");
        }
    }

    #[test]
    fn rows_are_one_based_and_inclusive() {
        assert_eq!(Rows::parse("1-400"), Ok(Rows { first: 1, last: 400 }));
        assert_eq!(Rows::parse("7"), Ok(Rows { first: 7, last: 7 }));
        let overlap = |a, b| Rows::overlap(Rows::parse(a).ok(), Rows::parse(b).ok());
        assert!(overlap("1-400", "400-401") && overlap("5", "1-9") && !overlap("1-400", "401-1000"));
        for bad in ["0-3", "4-3", "x", "1-", ""] {
            assert!(Rows::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_centre_is_kept() {
        let image = RgbImage::from_fn(40, 20, |x, _| image::Rgb([if x < 10 { 255 } else { 0 }, 0, 0]));
        let fitted = fit_size(&image, (10, 10));
        assert_eq!(fitted.dimensions(), (10, 10));
        assert!(fitted.pixels().all(|pixel| pixel.0[0] < 30));
    }
}
