//! The table against peers: one run, one machine, every answer checked. `README.md` says how to run it.

mod bench;
mod coder;
mod data;
mod ffi;
mod machine;
mod npy;
mod ours;
mod path;
mod peers;
mod table;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use bench::Effort;
use data::{Case, Features};

/// How to call the program.
const USAGE: &str = "usage: narrows-peers [--quick] [--features DIR] [--only NAME] [--data NAME] [--cpu LEVEL] \
                     [--out FILE] [--dump DIR]
  --quick         two sizes, two entropies, at most four files and short turns: under a minute
  --features DIR  also symbols of real features: DIR/*.npy, as make_symbols.py writes them
  --only NAME     only coders whose name contains NAME (commas separate several)
  --data NAME     only data whose name contains NAME, or `path` for the whole path
  --cpu LEVEL     scalar, sse4, avx2 or avx512: what libhtscodecs may use at most
  --out FILE      write the table to FILE as well
  --dump DIR      write messages for peers.py to DIR and stop";

/// What the command line asked for.
#[derive(Default)]
struct Options {
    quick: bool,
    features: Option<PathBuf>,
    only: Option<String>,
    data: Option<String>,
    cpu: Option<String>,
    out: Option<PathBuf>,
    dump: Option<PathBuf>,
}

impl Options {
    /// Reads the command line.
    fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Options, String> {
        let mut options = Options::default();
        while let Some(name) = arguments.next() {
            if name == "--quick" {
                options.quick = true;
                continue;
            }
            let mut value = || arguments.next().ok_or_else(|| USAGE.to_owned());
            match name.as_str() {
                "--features" => options.features = Some(value()?.into()),
                "--only" => options.only = Some(value()?),
                "--data" => options.data = Some(value()?),
                "--cpu" => options.cpu = Some(value()?),
                "--out" => options.out = Some(value()?.into()),
                "--dump" => options.dump = Some(value()?.into()),
                _ => return Err(USAGE.into()),
            }
        }
        Ok(options)
    }

    /// Whether data of this name is wanted.
    fn wants(&self, data: &str) -> bool {
        self.data.as_ref().is_none_or(|d| data.contains(d.as_str()))
    }

    /// Whether a coder of this name is wanted.
    fn runs(&self, coder: &str) -> bool {
        self.only.as_ref().is_none_or(|list| list.split(',').any(|n| coder.contains(n)))
    }

    /// The .npy files of the features folder: (symbols, f32 features whose name starts with `path`).
    fn files(&self) -> Result<(Vec<PathBuf>, Vec<PathBuf>), String> {
        let Some(folder) = &self.features else { return Ok(Default::default()) };
        let entries = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let mut files: Vec<PathBuf> = entries.filter_map(|e| e.ok().map(|e| e.path())).collect();
        files.retain(|p| p.extension().is_some_and(|e| e == "npy"));
        files.sort();
        Ok(files.into_iter().partition(|p| !p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("path"))))
    }

    /// Calls `f` for every case; only one is in memory at a time.
    fn for_cases(&self, mut f: impl FnMut(&Case) -> Result<(), String>) -> Result<(), String> {
        let (bits, sizes): (&[f64], &[usize]) = if self.quick {
            (&[0.5, 2.0], &[4 << 10, 1 << 20])
        } else {
            (&[0.5, 1.0, 2.0, 4.0], &[4 << 10, 64 << 10, 1 << 20, 16 << 20])
        };
        for &bits in bits {
            for &size in sizes {
                if self.wants(&format!("half-Laplacian, {bits} bits")) {
                    f(&data::synthetic(bits, size, data::pool(size, self.quick)))?;
                }
            }
        }
        let sizes: &[usize] = if self.quick { &[4 << 10, 64 << 10] } else { &[4 << 10, 64 << 10, 1 << 20] };
        let mut files = self.files()?.0;
        if self.quick && files.len() > 4 {
            files = (0..4).map(|i| files[(2 * i + 1) * files.len() / 8].clone()).collect();
        }
        for path in files {
            if !self.wants(&format!("features {}", path.file_stem().unwrap_or_default().to_string_lossy())) {
                continue;
            }
            let features = Features::read(&path)?;
            for &size in sizes {
                let limit = if self.quick { ((2 << 20) / size).max(64) } else { usize::MAX };
                if let Some(case) = features.case(size, limit) {
                    f(&case)?;
                }
            }
        }
        Ok(())
    }
}

/// Writes some messages of every case for the Python script: 64 of them, or 8 MiB together.
fn dump(options: &Options, folder: &std::path::Path) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("{}: {e}", folder.display());
    std::fs::create_dir_all(folder).map_err(failed)?;
    options.for_cases(|case| {
        let length = case.messages[0].len();
        let count = ((2 << 20) / length).clamp(1, 64).min(case.messages.len());
        let name = format!("{}, {}.npy", case.data, case.size);
        let shape = case.shape.map_or(vec![length], |s| s.to_vec());
        npy::write_messages(&folder.join(name), &case.messages[..count], &shape).map_err(failed)
    })
}

/// Restricts libhtscodecs to an instruction set.
#[cfg_attr(not(feature = "htscodecs"), allow(unused_variables))]
fn set_cpu(level: &str) -> Result<(), String> {
    let bits = match level {
        "scalar" => 0,
        "sse4" => 1,
        "avx2" => 3,
        "avx512" => 7,
        _ => return Err(USAGE.into()),
    };
    #[cfg(feature = "htscodecs")]
    ffi::htscodecs::set_cpu(bits);
    Ok(())
}

/// What the table stands on.
fn preamble(options: &Options, effort: Effort) -> String {
    let arguments: Vec<String> =
        std::env::args().skip(1).map(|a| if a.contains('/') { "PATH".into() } else { a }).collect();
    format!(
        "{}; {}; one thread; medians of {} turns of at most {} ms; instructions: {}.\nPeers: {}.\nArguments: {}\n\n\
         Bits count every header. \"Over entropy\" compares with the order-0 entropy of each message's own histogram. \
         Encoding includes the histogram, the tables and their bytes, except with a known table, which was made from \
         other symbols of the same source. A ratio is the speed over that of the fastest other peer whose streams are \
         at most 1 % larger than the row's (- where there is none). Features are channels-last, mapped 0, -1, 1, -2, 2 \
         to 0, 1, 2, 3, 4 and cut at 255; coders marked \"planes\" got them one plane per channel, the rearrangement \
         untimed.\n",
        machine::processor(),
        machine::date(),
        effort.repeats,
        effort.turn.as_millis(),
        options.cpu.as_deref().unwrap_or("all"),
        machine::versions(),
        arguments.join(" "),
    )
}

/// Runs the program.
fn run() -> Result<(), String> {
    let options = Options::parse(std::env::args().skip(1))?;
    if let Some(folder) = &options.dump {
        return dump(&options, folder);
    }
    if let Some(level) = &options.cpu {
        set_cpu(level)?;
    }
    let (repeats, turn) = if options.quick { (5, 8) } else { (7, 50) };
    let effort = Effort { repeats, turn: Duration::from_millis(turn) };

    let mut coders = peers::all(options.cpu.as_deref());
    coders.retain(|c| options.runs(&c.name()));
    let mut rows = Vec::new();
    options.for_cases(|case| {
        eprintln!("{}, {}: {} messages", case.data, case.size, case.messages.len());
        rows.extend(bench::measure(&mut coders, case, effort));
        Ok(())
    })?;

    let mut path_coders = path::all(options.cpu.as_deref());
    path_coders.retain(|c| options.runs(&c.name()));
    let mut path_rows = Vec::new();
    if options.wants("path") {
        eprintln!("whole path");
        path_rows.extend(path::measure(&mut path_coders, &path::PathData::synthetic(8), effort));
        for file in options.files()?.1 {
            path_rows.extend(path::measure(&mut path_coders, &path::PathData::read(&file)?, effort));
        }
    }

    let mut text = preamble(&options, effort);
    if !rows.is_empty() {
        text += &format!("\n{}", table::symbols(&rows));
    }
    if !path_rows.is_empty() {
        text += &format!(
            "\nThe whole path: f32 planes to a stream and back to f32, one step for all channels (about 2 bits a value \
             at order 0). GB are of f32.\n\n{}",
            table::path(&path_rows)
        );
    }
    print!("{text}");
    options.out.map_or(Ok(()), |path| std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display())))
}

/// Prints an error plainly.
fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `measure` asserts every answer.
    #[test]
    fn every_coder_gives_back_every_data_set_at_4_kib() {
        let effort = Effort { repeats: 1, turn: Duration::ZERO };
        let mut cases: Vec<Case> = [0.5, 1.0, 2.0, 4.0].map(|bits| data::synthetic(bits, 4 << 10, 8)).into();
        for shape in [[8, 8, 64], [14, 14, 80], [56, 56, 24], [1, 1, 3]] {
            cases.extend(Features::smooth(shape, 8).case(4 << 10, 8));
        }
        let mut same = data::synthetic(0.5, 4 << 10, 2);
        same.messages.iter_mut().for_each(|m| m.fill(0));
        cases.push(same);
        let mut coders = peers::all(options.cpu.as_deref());
        for case in &cases {
            let fitting = coders.iter().filter(|c| c.fits(case)).count();
            let rows = bench::measure(&mut coders, case, effort);
            assert_eq!(rows.len(), fitting);
            for row in rows {
                assert!(row.encode > 0.0 && row.decode > 0.0, "{} on {}", row.coder, row.data);
            }
        }
    }
}
