//! The lines of mode `lines`: a job in, its line out; a line in, what it says out.
//!
//! Touches no process.
//!
//! Invariant: a line has one meaning, or none: a JSON object with one key that is known.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::counters::Outcome;
use crate::gearman::{Ending, Job, Report};
use crate::instance::outcome::Verdict;

/// What a line of the process says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The job goes on.
    Report(Report),
    /// The job has ended.
    End(Verdict),
}

/// Appends the line of a job, with its line feed.
pub(super) fn write_job(job: &Job, out: &mut Vec<u8>) {
    #[derive(Serialize)]
    struct Line<'a> {
        handle: &'a str,
        function: &'a str,
        unique: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        payload: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        payload_base64: Option<String>,
    }
    let payload = std::str::from_utf8(&job.payload).ok();
    let line = Line {
        handle: &String::from_utf8_lossy(&job.handle),
        function: &String::from_utf8_lossy(&job.function),
        unique: &String::from_utf8_lossy(&job.unique),
        payload,
        payload_base64: payload.is_none().then(|| STANDARD.encode(&job.payload)),
    };
    serde_json::to_writer(&mut *out, &line).expect("memory takes all, and keys are text");
    out.push(b'\n');
}

/// Reads a line, without its line feed; results are at most `result_max` bytes.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read(line: &[u8], result_max: u64) -> Result<Answer, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Line {
        Status(u64, u64),
        Data(String),
        DataBase64(String),
        Warning(String),
        WarningBase64(String),
        Result(String),
        ResultBase64(String),
        Fail(bool),
        Exception(String),
    }
    let decode = |text: String| {
        STANDARD.decode(text).map(Bytes::from).map_err(|error| format!("no base64: {error}"))
    };
    let complete = |result: Bytes| {
        Answer::End(if result.len() as u64 > result_max {
            Verdict::failed(Outcome::ResultTooLarge)
        } else {
            Verdict { outcome: Outcome::Complete, ending: Ending::Complete(result) }
        })
    };
    let is_object = line.trim_ascii_start().starts_with(b"{");
    if !is_object {
        return Err("no JSON object".to_owned());
    }
    let line = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    Ok(match line {
        Line::Status(done, of) => Answer::Report(Report::Status(done, of)),
        Line::Data(text) => Answer::Report(Report::Data(text.into())),
        Line::DataBase64(text) => Answer::Report(Report::Data(decode(text)?)),
        Line::Warning(text) => Answer::Report(Report::Warning(text.into())),
        Line::WarningBase64(text) => Answer::Report(Report::Warning(decode(text)?)),
        Line::Result(text) => complete(text.into()),
        Line::ResultBase64(text) => complete(decode(text)?),
        Line::Fail(true) => Answer::End(Verdict::failed(Outcome::Fail)),
        Line::Fail(false) => return Err("`fail` can only be true".to_owned()),
        Line::Exception(text) => Answer::End(Verdict {
            outcome: Outcome::Exception,
            ending: Ending::Exception(text.into()),
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(unique: &'static [u8], payload: &'static [u8]) -> Job {
        Job {
            server: 0,
            handle: Bytes::from_static(b"H:host:1"),
            function: Bytes::from_static(b"resize"),
            unique: Bytes::from_static(unique),
            payload: Bytes::from_static(payload),
        }
    }

    fn line_of(job: &Job) -> String {
        let mut line = Vec::new();
        write_job(job, &mut line);
        String::from_utf8(line).expect("JSON is UTF-8")
    }

    #[test]
    fn a_job_is_a_line_with_four_keys() {
        assert_eq!(
            line_of(&job(b"u", b"a \"b\"\nc")),
            "{\"handle\":\"H:host:1\",\"function\":\"resize\",\"unique\":\"u\",\
             \"payload\":\"a \\\"b\\\"\\nc\"}\n"
        );
        assert_eq!(
            line_of(&job(b"", b"\xff\x00")),
            "{\"handle\":\"H:host:1\",\"function\":\"resize\",\"unique\":\"\",\
             \"payload_base64\":\"/wA=\"}\n"
        );
    }

    #[test]
    fn each_kind_of_line_is_read() {
        let read = |line: &str| read(line.as_bytes(), 10).expect(line);
        let bytes = Bytes::from_static;
        let report = |line, report| assert_eq!(read(line), Answer::Report(report), "{line}");
        report(r#"{"status":[1,10]}"#, Report::Status(1, 10));
        report(r#"{"data":"a\nb"}"#, Report::Data(bytes(b"a\nb")));
        report(r#"{"data_base64":"/wA="}"#, Report::Data(bytes(b"\xff\0")));
        report(r#"{"warning":"w"}"#, Report::Warning(bytes(b"w")));
        report(r#"{"warning_base64":"/w=="}"#, Report::Warning(bytes(b"\xff")));
        let end = |line, outcome, ending| {
            assert_eq!(read(line), Answer::End(Verdict { outcome, ending }), "{line}");
        };
        let complete = |result| Ending::Complete(bytes(result));
        end(" { \"result\" : \"\u{e9}\" } \r", Outcome::Complete, complete("\u{e9}".as_bytes()));
        end(r#"{"result":"\u00e9"}"#, Outcome::Complete, complete("\u{e9}".as_bytes()));
        end(r#"{"result_base64":"/wA="}"#, Outcome::Complete, complete(b"\xff\0"));
        end(r#"{"result":"0123456789"}"#, Outcome::Complete, complete(b"0123456789"));
        end(r#"{"result":"0123456789-"}"#, Outcome::ResultTooLarge, Ending::Fail);
        end(r#"{"fail":true}"#, Outcome::Fail, Ending::Fail);
        end(r#"{"exception":"e"}"#, Outcome::Exception, Ending::Exception(bytes(b"e")));
    }

    #[test]
    fn anything_else_is_refused() {
        for line in [
            "",
            "PHP Warning: foreach()",
            "\"fail\"",
            "[]",
            "{}",
            "null",
            r#"{"results":"x"}"#,
            r#"{"result":1}"#,
            r#"{"result":null}"#,
            r#"{"result":"x","fail":true}"#,
            r#"{"result":"x"}{"result":"y"}"#,
            r#"{"result":"x""#,
            r#"{"result_base64":"%"}"#,
            r#"{"status":[1]}"#,
            r#"{"status":[1,2,3]}"#,
            r#"{"status":[-1,2]}"#,
            r#"{"status":"1 2"}"#,
            r#"{"fail":false}"#,
            r#"{"exception":{}}"#,
            "{\"result\":\"\\ud800\"}",
        ] {
            assert!(read(line.as_bytes(), 10).is_err(), "{line}");
        }
        assert!(read(b"{\"result\":\"\xff\"}", 10).is_err());
    }
}
