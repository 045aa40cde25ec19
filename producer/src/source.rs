//! Where items come from: the records of a file or of stdin.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Context, Result, bail};

use common::checksum;
use common::limits::NAME_BYTES_MAX;

use crate::cli::Format;

/// Read at once: several batches' worth.
const READ_BYTES: usize = 256 * 1024;

/// What is wrong with an input that does not begin with what is put already, and what to do.
const CHANGED: &str = "it has changed, or is another input; nothing was put. Give it its beginning back, \
    or put all of it as a new producer (another --name; in a coordinator's run, another --journal)";

/// An input and how far it is read.
pub struct Source {
    name: String,
    format: Format,
    input: Box<dyn BufRead>,
    can_be_read_again: bool,
    record: Vec<u8>,
    line: u64,
}

impl Source {
    /// Opens a file, or stdin for `-`.
    pub fn open(path: &Path, format: Format) -> Result<Source> {
        if path == Path::new("-") {
            return Ok(Source::new("stdin".into(), format, Box::new(std::io::stdin()), false));
        }
        let name = path.display().to_string();
        let file = File::open(path).with_context(|| format!("cannot read {name}"))?;
        let meta = file.metadata().with_context(|| format!("cannot read {name}"))?;
        if meta.is_dir() {
            bail!("cannot read {name}: it is a directory; give a file, or a list of files on stdin (`find … | … --input -`)");
        }
        Ok(Source::new(name, format, Box::new(file), meta.is_file()))
    }

    /// What it is called in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Goes by another name in messages, if one is given.
    pub fn shown_as(self, name: Option<&str>) -> Source {
        Source { name: name.map_or(self.name, String::from), ..self }
    }

    /// Reads from anything, under a name for messages.
    pub fn new(name: String, format: Format, input: Box<dyn Read>, can_be_read_again: bool) -> Source {
        let input = Box::new(BufReader::with_capacity(READ_BYTES, input));
        Source { name, format, input, can_be_read_again, record: Vec::new(), line: 0 }
    }

    /// The next record, of `bytes_max` bytes at most; `None` at the end. An error names the record's line (in the `nul` format: which
    /// record it is).
    pub fn next(&mut self, bytes_max: u64) -> Result<Option<&[u8]>> {
        while self.read_record(bytes_max)? {
            if self.format != Format::Json {
                return Ok(Some(&self.record));
            }
            if self.record.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            // Looked through without being taken apart; but unlike what is ignored altogether, it has to be UTF-8.
            if let Err(error) = serde_json::from_slice::<&serde_json::value::RawValue>(&self.record) {
                // Its place within the record, which is one line, is told apart from the record's place in the input.
                let (what, column) = (error.to_string(), error.column());
                let what = what.split(" at line ").next().unwrap_or_default();
                bail!("{} column {column}: this is not JSON: {what}; mend the line, or use --format lines", self.place());
            }
            return Ok(Some(&self.record));
        }
        Ok(None)
    }

    /// Passes over the first `count` items, which an earlier reader of the same input has put already, if it is known: they have this
    /// checksum. Without one, only an input that can be read again is taken to be the same.
    pub fn skip(&mut self, count: u64, checksum: Option<u64>) -> Result<()> {
        if !self.can_be_read_again && checksum.is_none() {
            bail!(
                "{} cannot be read again from its beginning, and {count} of its items are put already; put all of it under another --name",
                self.name
            );
        }
        let mut came = checksum::START;
        for n in 0..count {
            match self.next(u64::MAX)? {
                Some(item) => came = checksum::add(came, item),
                None => bail!("{} ends after {n} of the {count} items that were put from it before: {CHANGED}", self.name),
            }
        }
        if checksum.is_some_and(|checksum| checksum != came) {
            bail!("the first {count} items of {} are not those that were put before: {CHANGED}", self.name);
        }
        Ok(())
    }

    /// A name for who reads this, the same whenever it is read again; none for what cannot be.
    pub fn producer_name(&self, path: &Path) -> Option<String> {
        let path = std::path::absolute(path).ok().filter(|_| self.can_be_read_again)?;
        let name = format!("input:{}", path.display());
        if path.to_str().is_some() && name.len() <= NAME_BYTES_MAX {
            return Some(name);
        }
        // Its end tells people most; the checksum tells apart what begins otherwise, or is no text.
        let sum = format!("input:{:016x}…", checksum::add(checksum::START, path.as_os_str().as_encoded_bytes()));
        let from = name.ceil_char_boundary((name.len() + sum.len()).saturating_sub(NAME_BYTES_MAX).max("input:".len()));
        Some(sum + &name[from..])
    }

    /// Reads up to and without the delimiter. False at the end.
    fn read_record(&mut self, bytes_max: u64) -> Result<bool> {
        let delimiter = if self.format == Format::Nul { 0 } else { b'\n' };
        self.record.clear();
        self.line += 1;
        // One more than allowed and the delimiter: enough to see that a record is too long without taking it in.
        let mut limited = (&mut self.input).take(bytes_max.saturating_add(1));
        let read = limited.read_until(delimiter, &mut self.record);
        let read = read.with_context(|| format!("cannot read on at {}", self.place()))?;
        if read == 0 {
            return Ok(false);
        }
        if self.record.last() == Some(&delimiter) {
            self.record.pop();
        } else if self.record.len() as u64 > bytes_max {
            let place = self.place();
            bail!("{place}: longer than {bytes_max} bytes, the most that the coordinator takes; raise its --max-item, or shorten the item");
        }
        Ok(true)
    }

    fn place(&self) -> String {
        match self.format {
            Format::Nul => format!("{} record {}", self.name, self.line),
            Format::Lines | Format::Json => format!("{} line {}", self.name, self.line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &'static str, format: Format) -> Source {
        Source::new("in".into(), format, Box::new(text.as_bytes()), true)
    }

    fn all(mut source: Source) -> Vec<String> {
        let mut items = Vec::new();
        while let Some(item) = source.next(10).unwrap() {
            items.push(String::from_utf8(item.to_vec()).unwrap());
        }
        items
    }

    #[test]
    fn each_line_is_an_item_empty_ones_and_an_unfinished_last_one_too() {
        assert_eq!(all(source("a\n\nb c\r\nlast", Format::Lines)), ["a", "", "b c\r", "last"]);
        assert_eq!(all(source("", Format::Lines)), [""; 0]);
    }

    #[test]
    fn nul_separates_items_that_hold_newlines() {
        assert_eq!(all(source("a\nb\0c\0", Format::Nul)), ["a\nb", "c"]);
    }

    #[test]
    fn json_lines_are_checked_and_passed_on_as_they_are() {
        assert_eq!(all(source("{\"a\": 1}\n\n [2]\n", Format::Json)), ["{\"a\": 1}", " [2]"]);
        let mut bad = source("1\n{\"a\": \n", Format::Json);
        bad.next(10).unwrap();
        let error = bad.next(10).unwrap_err().to_string();
        assert!(error.starts_with("in line 2 column 6: this is not JSON: EOF while parsing a value;"), "{error}");
    }

    #[test]
    fn what_is_not_utf8_is_not_json() {
        let mut bad = Source::new("in".into(), Format::Json, Box::new(&b"1\n\"\xff\"\n"[..]), true);
        assert!(bad.next(10).unwrap().is_some());
        let error = bad.next(10).unwrap_err().to_string();
        assert!(error.starts_with("in line 2 column 2: this is not JSON: invalid unicode code point;"), "{error}");
    }

    #[test]
    fn an_item_may_be_as_long_as_the_limit_and_not_longer() {
        let mut input = source("0123456789\n0123456789A\n", Format::Lines);
        assert_eq!(input.next(10).unwrap(), Some(&b"0123456789"[..]));
        let error = input.next(10).unwrap_err().to_string();
        assert!(error.starts_with("in line 2: longer than 10 bytes"), "{error}");
    }

    #[test]
    fn one_that_was_read_in_part_goes_on_behind_that() {
        let mut input = source("a\nb\nc\n", Format::Lines);
        input.skip(2, None).unwrap();
        assert_eq!(input.next(10).unwrap(), Some(&b"c"[..]));
        let shorter = source("a\n", Format::Lines).skip(2, None).unwrap_err().to_string();
        assert!(shorter.starts_with("in ends after 1 of the 2 items that were put from it before: it has changed"), "{shorter}");
    }

    #[test]
    fn one_that_begins_otherwise_than_before_is_refused() {
        let sum = |items: &[&str]| Some(items.iter().fold(checksum::START, |sum, item| checksum::add(sum, item.as_bytes())));
        let mut same = source("a\nb\nc\n", Format::Lines);
        same.skip(2, sum(&["a", "b"])).unwrap();
        assert_eq!(same.next(10).unwrap(), Some(&b"c"[..]));
        let other = source("a\nx\nc\n", Format::Lines).skip(2, sum(&["a", "b"])).unwrap_err().to_string();
        assert!(other.starts_with("the first 2 items of in are not those that were put before: it has changed"), "{other}");
    }

    #[test]
    fn a_pipe_is_passed_over_only_if_what_comes_out_of_it_is_known() {
        let pipe = || Source::new("stdin".into(), Format::Lines, Box::new(&b"a\nb\n"[..]), false);
        assert!(pipe().skip(1, None).unwrap_err().to_string().contains("cannot be read again"));
        pipe().skip(1, Some(checksum::add(checksum::START, b"a"))).unwrap();
        assert!(pipe().skip(1, Some(checksum::add(checksum::START, b"b"))).is_err());
    }

    #[test]
    fn a_file_gives_its_reader_a_name_that_fits_and_no_other_file_does() {
        let name = |path: &str| source("", Format::Lines).producer_name(Path::new(path)).unwrap();
        assert_eq!(name("/data/jobs.txt"), "input:/data/jobs.txt");
        assert_eq!(name("jobs.txt"), format!("input:{}/jobs.txt", std::env::current_dir().unwrap().display()));
        let (one, other) = (name(&format!("/é/{}/z", "é".repeat(200))), name(&format!("/è/{}/z", "é".repeat(200))));
        assert!(one.len() <= NAME_BYTES_MAX && one.ends_with("éé/z") && one != other, "{one}");
        let pipe = Source::new("stdin".into(), Format::Lines, Box::new(&b""[..]), false);
        assert_eq!(pipe.producer_name(Path::new("/dev/fd/63")), None);
    }
}
