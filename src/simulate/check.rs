//! Whether measurements that were not read from a file can be simulated with.

use crate::error::{Error, Result};
use crate::split::{Coding, Measurements};

/// Checks that everything is of the same images, and that times are times.
///
/// # Errors
/// `InvalidInput` that names what is not so, or says that there are no images.
pub fn measurements(measured: &Measurements) -> Result<()> {
    let images = measured.images();
    if images == 0 {
        return Err(Error::invalid("measurements without images: there is nothing to simulate with"));
    }
    let list = |name: String, length: usize| match length == images {
        true => Ok(()),
        false => Err(Error::invalid(format!("measurements: {length} {name} for {images} images"))),
    };
    let time = |name: String, seconds: f64| match seconds.is_finite() && seconds >= 0.0 {
        true => Ok(()),
        false => Err(Error::invalid(format!("measurements: {seconds} seconds for {name}"))),
    };
    let coding = |coding: &Coding| {
        let name = format!("{} {}", coding.codec, coding.setting);
        list(format!("sizes of {name}"), coding.bytes.len())?;
        list(format!("answers of {name}"), coding.answers.len())?;
        time(name.clone(), coding.encode).and(time(name, coding.decode))
    };
    list("answers".into(), measured.answers.len())?;
    time("the whole network".into(), measured.whole)?;
    measured.inputs.iter().try_for_each(coding)?;
    for cut in &measured.cuts {
        time(format!("the head of {}", cut.name), cut.head)?;
        time(format!("the tail of {}", cut.name), cut.tail)?;
        cut.codings.iter().try_for_each(coding)?;
    }
    for exit in &measured.exits {
        list(format!("logits of {}", exit.name), exit.logits.len())?;
        if exit.logits.iter().any(|logits| logits.len() != measured.classes) {
            return Err(Error::invalid(format!("measurements: {} has not {} classes", exit.name, measured.classes)));
        }
        time(exit.name.clone(), exit.seconds).and(time(exit.name.clone(), exit.extra))?;
    }
    Ok(())
}
