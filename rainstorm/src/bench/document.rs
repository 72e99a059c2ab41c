//! What the bench has found as a document with pictures, and what follows from it for more orders than one machine can
//! take (`docs/scale.md`). The same reports always make the same bytes: a document that anybody changed by hand is
//! noticed. What people have to say about figures stands beside the reports: `notes.md` and `about.md`.

mod capacity;
mod text;

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs, io,
    path::{Path, PathBuf},
};

use self::text::{INTRODUCTION, Notes, picture, tell};
use super::{
    drawing,
    report::{Figure, Floor, Report},
};

/// What is written, and after how many runs.
#[derive(Debug, clap::Args)]
pub struct DocumentArgs {
    /// Measure everything so many times; figures are the medians then.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub runs: u32,
    /// Keep what was found in this folder, and write the documents beside it anew: `docs/performance`.
    #[arg(long, value_name = "DIR")]
    pub write: Option<PathBuf>,
    /// Measure nothing; write the documents anew from what is kept in this folder.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["write", "runs"])]
    pub render: Option<PathBuf>,
}

/// Why there is no document.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    #[error("{path}: {source}")]
    File { path: String, source: io::Error },
    #[error("{path}: no report of a bench: {source}")]
    Json { path: String, source: serde_json::Error },
    #[error("{0}: there is no report in it; `rainstorm bench --write` makes one")]
    Nothing(String),
    #[error("{0}: no report has a figure with the name \"{1}\"")]
    Note(String, String),
    #[error("{0}: the bench's table has to stand between {begin} and {end}", begin = capacity::BEGIN, end = capacity::END)]
    Marks(String),
}

impl DocumentError {
    fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { path: path.display().to_string(), source }
    }

    fn json(path: &Path) -> impl FnOnce(serde_json::Error) -> Self {
        move |source| Self::Json { path: path.display().to_string(), source }
    }
}

/// Several whole runs as one report: of each figure the median, and what each run found. Everything else is that of
/// the last run. `None` if nothing has run.
pub fn merge(runs: Vec<Report>) -> Option<Report> {
    let mut figures: Vec<Figure> = Vec::new();
    for figure in runs.iter().flat_map(|run| &run.figures) {
        if figures.iter().any(|known| (known.part, &known.name) == (figure.part, &figure.name)) {
            continue;
        }
        let found = runs.iter().flat_map(|run| &run.figures);
        let found: Vec<_> = found.filter(|f| (f.part, &f.name) == (figure.part, &figure.name)).collect();
        let values: Vec<_> = found.iter().map(|figure| figure.value).collect();
        let floors: Vec<_> = found.iter().filter_map(|figure| figure.floor.as_ref()).collect();
        let floor = figure.floor.as_ref().map(|floor| Floor {
            name: floor.name.clone(),
            value: median(floors.iter().map(|floor| floor.value)),
            ratio: median(floors.iter().map(|floor| floor.ratio)),
        });
        let (value, runs) = (median(values.iter().copied()), if runs.len() > 1 { values } else { Vec::new() });
        figures.push(Figure { value, floor, runs, ..figure.clone() });
    }
    runs.into_iter().next_back().map(|last| Report { figures, ..last })
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = |index: usize| values.get(index).copied().unwrap_or_default();
    f64::midpoint(middle(values.len().saturating_sub(1) / 2), middle(values.len() / 2))
}

/// Keeps a report in `folder`, as the one of its place.
///
/// # Errors
/// If it can't be written.
pub fn keep(folder: &Path, report: &Report) -> Result<(), DocumentError> {
    let name = if report.place == "embedded" { "embedded.json" } else { "servers.json" };
    let path = folder.join(name);
    fs::create_dir_all(folder).map_err(DocumentError::at(folder))?;
    let report = Report { command: typed(&report.command), ..report.clone() };
    let text = in_lines(&report).map_err(DocumentError::json(&path))?;
    fs::write(&path, text).map_err(DocumentError::at(&path))
}

/// A command that others can type: without where the program lay, and without passwords.
fn typed(command: &str) -> String {
    let words = command.split(' ').enumerate().map(|(number, word)| match (number, word.split_once("://")) {
        (0, _) => word.rsplit(['/', '\\']).next().unwrap_or(word).to_owned(),
        (_, Some((scheme, rest))) => match rest.rsplit_once('@') {
            Some((_, host)) => format!("{scheme}://…@{host}"),
            None => word.to_owned(),
        },
        _ => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}

/// JSON with a line for each figure and each plot, so that a difference between two reports can be read.
fn in_lines(report: &Report) -> Result<String, serde_json::Error> {
    let mut lines = Vec::new();
    if let serde_json::Value::Object(fields) = serde_json::to_value(report)? {
        for (name, value) in &fields {
            let text = match value {
                serde_json::Value::Array(items) if !items.is_empty() => {
                    let items: Vec<_> = items.iter().map(|item| format!("    {item}")).collect();
                    format!("[\n{}\n  ]", items.join(",\n"))
                }
                value => value.to_string(),
            };
            lines.push(format!("  {}: {text}", serde_json::to_string(name)?));
        }
    }
    Ok(format!("{{\n{}\n}}\n", lines.join(",\n")))
}

/// Writes the documents anew: `<folder>.md` and the table in `scale.md` beside it, and the pictures in it.
///
/// # Errors
/// If there is no report in `folder`, one can't be read, or a document can't be written.
pub fn write(folder: &Path) -> Result<(), DocumentError> {
    let documents = render(folder)?;
    let folder = folder.canonicalize().map_err(DocumentError::at(folder))?;
    if !documents.contains_key(&document_of(&folder)) {
        return Err(DocumentError::Nothing(folder.display().to_string()));
    }
    for path in files(&folder, "svg")?.into_iter().filter(|path| !documents.contains_key(path)) {
        fs::remove_file(&path).map_err(DocumentError::at(&path))?;
    }
    for (path, text) in documents {
        fs::write(&path, text).map_err(DocumentError::at(&path))?;
    }
    Ok(())
}

/// What the documents have to be, by file.
fn render(folder: &Path) -> Result<BTreeMap<PathBuf, String>, DocumentError> {
    let folder = folder.canonicalize().map_err(DocumentError::at(folder))?;
    let mut reports = Vec::new();
    for path in files(&folder, "json")? {
        let text = fs::read_to_string(&path).map_err(DocumentError::at(&path))?;
        let report: Report = serde_json::from_str(&text).map_err(DocumentError::json(&path))?;
        reports.push((path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), report));
    }
    let mut documents = BTreeMap::new();
    let scale = folder.with_file_name("scale.md");
    if let Some(text) = read(&scale)? {
        let text =
            capacity::inserted(&text, &reports).ok_or_else(|| DocumentError::Marks(scale.display().to_string()))?;
        documents.insert(scale, text);
    }
    if reports.is_empty() {
        return Ok(documents);
    }
    let notes = folder.join("notes.md");
    let unknown = |name| DocumentError::Note(notes.display().to_string(), name);
    let notes = Notes::read(&read(&notes)?.unwrap_or_default(), &reports).map_err(unknown)?;
    let mut text = INTRODUCTION.to_owned();
    for (place, report) in &reports {
        tell(&mut text, &name_of(&folder), place, report, &notes);
        let drawn = report.plots.iter().map(|plot| (folder.join(picture(place, &plot.id)), drawing::svg(plot)));
        documents.extend(drawn);
    }
    if let Some(about) = read(&folder.join("about.md"))? {
        let _ = write!(text, "\n{}\n", about.trim());
    }
    documents.insert(document_of(&folder), text);
    Ok(documents)
}

/// The document of a folder, beside it.
fn document_of(folder: &Path) -> PathBuf {
    folder.with_file_name(format!("{}.md", name_of(folder)))
}

fn name_of(folder: &Path) -> String {
    folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The files with this extension, in order.
fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, DocumentError> {
    let entries = fs::read_dir(folder).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    let paths = entries.map_err(DocumentError::at(folder))?.into_iter().map(|entry| entry.path());
    let mut paths: Vec<_> = paths.filter(|path| path.extension().is_some_and(|known| known == extension)).collect();
    paths.sort();
    Ok(paths)
}

/// A file that need not be there.
fn read(path: &Path) -> Result<Option<String>, DocumentError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(DocumentError::at(path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::report::{Axis, Part, Plot, Series, Target},
        *,
    };

    fn orders(value: f64) -> Figure {
        Figure::new(Part::Capacity, "orders from placed to completed", value, "orders/s")
    }

    fn report(figures: Vec<Figure>) -> Report {
        Report {
            date: "2026-01-01T00:00:00Z".to_owned(),
            version: "0.1.0".to_owned(),
            place: "embedded".to_owned(),
            command: "/somebodys/folder/rainstorm bench --postgres-url postgres://me:secret@host/db".to_owned(),
            machine: "a machine".to_owned(),
            processors: 2,
            quick: false,
            figures,
            plots: Vec::new(),
        }
    }

    fn plot(id: &str) -> Plot {
        let axis = |name: &str| Axis { name: name.to_owned(), unit: "s".to_owned(), logarithmic: false };
        let series = Series { name: "measured".to_owned(), model: false, points: vec![(0.0, 1.0), (1.0, 2.0)] };
        Plot {
            part: Part::Capacity,
            id: id.to_owned(),
            title: format!("about {id}"),
            x: axis("time"),
            y: axis("delay"),
            series: vec![series],
        }
    }

    /// `docs` of somebody's, with `docs/performance`.
    fn docs() -> (tempfile::TempDir, PathBuf) {
        let docs = tempfile::tempdir().unwrap();
        let folder = docs.path().join("performance");
        fs::create_dir(&folder).unwrap();
        (docs, folder)
    }

    /// The document of `report`, with these notes.
    fn told(report: &Report, notes: &str) -> String {
        let (docs, folder) = docs();
        keep(&folder, report).unwrap();
        fs::write(folder.join("notes.md"), notes).unwrap();
        write(&folder).unwrap();
        fs::read_to_string(docs.path().join("performance.md")).unwrap()
    }

    #[test]
    fn two_whole_runs_come_to_their_medians_and_say_what_each_found() {
        let first = Report { plots: vec![plot("first")], ..report(vec![orders(90.0).beside("the log", 900.0)]) };
        let memory = Figure::new(Part::Start, "memory", 7.0, "MB");
        let last = Report {
            date: "2026-01-02T00:00:00Z".to_owned(),
            plots: vec![plot("last")],
            ..report(vec![orders(110.0).beside("the log", 1000.0), memory.clone()])
        };
        let merged = merge(vec![first, last]).unwrap();
        let both = Figure { runs: vec![90.0, 110.0], ..orders(100.0) };
        let ratio = f64::midpoint(0.1, 0.11);
        let floor = Some(Floor { name: "the log".to_owned(), value: 950.0, ratio });
        assert_eq!(merged.figures, [Figure { floor, ..both }, Figure { runs: vec![7.0], ..memory }]);
        assert_eq!((merged.date.as_str(), merged.plots), ("2026-01-02T00:00:00Z", vec![plot("last")]));
        let text = told(&report(vec![Figure { runs: vec![90.0, 110.0], ..orders(100.0) }]), "");
        assert!(text.contains("| 90 · 110 (20.0 % apart) |"), "{text}");
        assert!(text.contains("20.0 % at most (orders from placed to completed)"), "{text}");
    }

    #[test]
    fn the_median_of_three_is_one_of_them_and_one_run_is_what_it_was() {
        let runs = [3.0, 100.0, 1.0].map(|value| report(vec![orders(value)]));
        assert_eq!(merge(runs.to_vec()).unwrap().figures[0].value, 3.0);
        assert_eq!(merge(vec![report(vec![orders(5.0)])]), Some(report(vec![orders(5.0)])));
        assert_eq!(merge(Vec::new()), None);
    }

    #[test]
    fn a_missed_target_is_marked_and_explained_or_said_not_to_be() {
        let missed = report(vec![orders(1530.0).aiming_at(Target::AtLeast(2000.0))]);
        let text = told(&missed, "");
        assert!(text.contains("| 1,530 orders/s | at least 2,000 orders/s | **no** |"), "{text}");
        assert!(text.contains("**Not explained yet.**"), "{text}");
        let notes = "# Notes\n\n## orders from placed to completed\n\nBecause.\n";
        let text = told(&missed, notes);
        assert!(text.contains("at least 2,000 orders/s.* Because.\n") && !text.contains("Not explained"), "{text}");
        let text = told(&missed, &format!("{notes}\n## embedded: orders from placed to completed\nHere, two cores.\n"));
        assert!(text.contains(".* Here, two cores.\n") && !text.contains("Because"), "{text}");
        let met = told(&report(vec![orders(2000.0).aiming_at(Target::AtLeast(2000.0))]), notes);
        assert!(met.contains("| yes |") && !met.contains("Because"), "{met}");
    }

    #[test]
    fn a_note_about_no_figure_is_an_error() {
        let (_docs, folder) = docs();
        keep(&folder, &report(vec![orders(1.0)])).unwrap();
        fs::write(folder.join("notes.md"), "## servers: orders from placed to completed\n\nSlow.\n").unwrap();
        let error = write(&folder).unwrap_err().to_string();
        assert!(error.contains("notes.md") && error.contains("servers: orders"), "{error}");
    }

    #[test]
    fn a_report_is_kept_without_what_is_nobodys_business_and_reads_as_it_was() {
        let (_docs, folder) = docs();
        let kept = Report { plots: vec![plot("one")], ..report(vec![orders(1.0).beside("the log", 3.0)]) };
        keep(&folder, &kept).unwrap();
        let text = fs::read_to_string(folder.join("embedded.json")).unwrap();
        let command = "rainstorm bench --postgres-url postgres://…@host/db".to_owned();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), Report { command, ..kept });
        assert!(!text.contains("secret") && !text.contains("/somebodys"), "{text}");
        assert!(text.lines().any(|line| line.starts_with("    {\"part\":\"capacity\"")), "{text}");
    }

    #[test]
    fn a_broken_report_is_named() {
        let (_docs, folder) = docs();
        keep(&folder, &report(vec![orders(1.0)])).unwrap();
        fs::write(folder.join("servers.json"), "{\"date\": ").unwrap();
        let error = write(&folder).unwrap_err().to_string();
        assert!(error.contains("servers.json") && error.contains("EOF"), "{error}");
    }

    #[test]
    fn without_a_report_there_is_no_document() {
        let (docs, folder) = docs();
        assert!(write(&folder).unwrap_err().to_string().contains("there is no report"));
        assert!(!docs.path().join("performance.md").exists());
    }

    #[test]
    fn a_picture_stands_in_its_part_and_goes_when_its_plot_goes() {
        let (docs, folder) = docs();
        let mut report = report(vec![orders(1.0)]);
        for id in ["old", "new"] {
            report.plots = vec![plot(id)];
            keep(&folder, &report).unwrap();
            write(&folder).unwrap();
        }
        let text = fs::read_to_string(docs.path().join("performance.md")).unwrap();
        assert!(text.contains("\n![about new](performance/embedded-new.svg)\n"), "{text}");
        let pictures = files(&folder, "svg").unwrap();
        assert_eq!(pictures, [folder.join("embedded-new.svg")]);
    }

    #[test]
    fn what_is_general_stands_at_the_end() {
        let (docs, folder) = docs();
        keep(&folder, &report(vec![orders(1.0)])).unwrap();
        fs::write(folder.join("about.md"), "\n## How to read this\n\nSlowly.\n\n").unwrap();
        write(&folder).unwrap();
        let text = fs::read_to_string(docs.path().join("performance.md")).unwrap();
        assert!(text.ends_with("\n\n## How to read this\n\nSlowly.\n"), "{text}");
    }

    /// The documents are what the reports make of them: whoever wants to change them measures, or changes the program.
    #[test]
    fn the_documents_of_this_repository_are_what_its_reports_make_of_them() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/performance").canonicalize().unwrap();
        let documents = render(&folder).unwrap();
        for (path, text) in &documents {
            let there = fs::read_to_string(path).unwrap_or_default();
            assert_eq!(&there, text, "{}: type `rainstorm bench --render docs/performance`", path.display());
        }
        let written = files(&folder, "svg").unwrap().into_iter().chain([document_of(&folder)]);
        for path in written.filter(|path| path.exists()) {
            assert!(documents.contains_key(&path), "{} comes from no report", path.display());
        }
        // The table of growth is one of them, measured or not.
        assert!(documents.contains_key(&folder.with_file_name("scale.md")));
    }
}
