//! One self-contained HTML page.

use crate::output::thousands;
use crate::report::picture::base64;
use crate::report::plot::{Quantity, escape, rate_plot};
use crate::report::table::{COLUMNS, cells};
use crate::report::{FeaturePicture, Report, TARGETS, bd_note, bd_text, bytes_at_text};

const STYLE: &str = include_str!("style.css");

/// The page of a report.
pub fn page(report: &Report) -> String {
    let title = escape(&report.title);
    let about = format!("<p>{}</p>\n", escape(&report.about.join(" ")));
    let mut body = format!(
        "<h1>{title}</h1>\n{about}<p>{} images, top-1 of the uncut network {:.4}.</p>\n",
        thousands(report.images as u64),
        report.top1
    );
    for (heading, quantity) in [
        ("Accuracy", Quantity::Top1),
        ("Agreement with the uncut network", Quantity::Agreement),
        ("Divergence from the uncut network", Quantity::Divergence),
    ] {
        body += &format!("<h2>{heading}</h2>\n{}", rate_plot(report, quantity));
    }
    body += &comparisons(report);
    body += &targets(report);
    for picture in &report.pictures {
        body += &feature(picture);
    }
    body += &points(report);
    document(&title, &body)
}

/// A whole page; both texts are HTML already.
pub(super) fn document(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )
}

/// A table; the first `left` columns hold text.
pub(super) fn table(head: &[String], rows: &[Vec<String>], left: usize) -> String {
    let row = |cells: &[String], tag: &str| {
        let cells = cells.iter().enumerate().map(|(i, cell)| {
            let class = if i < left { " class=\"name\"" } else { "" };
            format!("<{tag}{class}>{}</{tag}>", escape(cell))
        });
        format!("<tr>{}</tr>\n", cells.collect::<String>())
    };
    let body: String = rows.iter().map(|cells| row(cells, "td")).collect();
    format!(
        "<div class=\"scroll\"><table>\n<thead>{}</thead>\n<tbody>\n{body}</tbody>\n</table></div>\n",
        row(head, "th")
    )
}

fn comparisons(report: &Report) -> String {
    let comparisons = report.comparisons();
    let note = bd_note(&comparisons).map_or(String::new(), |note| format!("<p>{note}</p>\n"));
    let rows: Vec<Vec<String>> = comparisons
        .into_iter()
        .map(|comparison| {
            let (percent, range) = bd_text(comparison.bd);
            vec![
                comparison.test,
                comparison.reference.to_string(),
                comparison.measure.name().to_string(),
                percent,
                range,
            ]
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let head = ["sent", "against", "by", "difference in bytes", "over"].map(str::to_string);
    format!(
        "<h2>BD-rate</h2>\n<p>Mean difference in bytes at equal accuracy: log(bytes) over accuracy as a monotone \
         cubic through the points that none other beats in both, over the accuracies that both reach.</p>\n{}{note}",
        table(&head, &rows, 3)
    )
}

fn targets(report: &Report) -> String {
    let targets = report.targets();
    if targets.is_empty() {
        return String::new();
    }
    let head: Vec<String> =
        std::iter::once("sent".to_string()).chain(TARGETS.map(|target| format!("{target:.2}"))).collect();
    let rows: Vec<Vec<String>> = targets
        .into_iter()
        .map(|(name, bytes)| std::iter::once(name).chain(bytes.into_iter().map(bytes_at_text)).collect())
        .collect();
    format!(
        "<h2>Bytes at an agreement</h2>\n<p>Between measured points, linear in log(bytes).</p>\n{}",
        table(&head, &rows, 1)
    )
}

fn feature(picture: &FeaturePicture) -> String {
    let image = |bytes: &[u8], text: &str, class: &str| {
        format!(
            "<figure class=\"{class}\"><img alt=\"{text}\" src=\"data:image/png;base64,{}\">\
             <figcaption>{text}</figcaption></figure>\n",
            base64(bytes)
        )
    };
    let (shown, all) = picture.channels;
    format!(
        "<h2>A feature before and after</h2>\n<p>At <code>{}</code>: the {shown} channels of {all} that vary most, \
         each from its least to its largest value.</p>\n<div class=\"pictures\">\n{}{}{}</div>\n",
        escape(&picture.cut),
        image(&picture.input, "the input", "input"),
        image(&picture.before, &format!("before: {} bytes as f32", thousands(picture.raw_bytes as u64)), "maps"),
        image(
            &picture.after,
            &format!("after {}: {} bytes", escape(&picture.codec), thousands(picture.bytes as u64)),
            "maps"
        ),
    )
}

fn points(report: &Report) -> String {
    let head: Vec<String> = std::iter::once("sent").chain(COLUMNS).map(str::to_string).collect();
    let rows: Vec<Vec<String>> = report
        .points
        .iter()
        .map(|point| {
            let cut = point.cut.as_deref().unwrap_or("input").to_string();
            std::iter::once(cut).chain(cells(point)).collect()
        })
        .collect();
    format!(
        "<h2>All points</h2>\n<p>Bytes per image with all headers: mean, standard deviation, 99th percentile, \
         largest. KL: divergence from the uncut network's answer, in nats. Times: median on one core.</p>\n{}",
        table(&head, &rows, 2)
    )
}
