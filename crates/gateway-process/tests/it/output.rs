//! The pipes: always drained, never lost across chunks, never in anybody's way.

use gateway_process::pump::{FIRST_STDERR_LINES, RECENT_STDERR_LINES};
use gateway_process::{OsProcessHost, OutputEvent, OutputSource, ProcessHost, StderrLevel};

use crate::support::{PATIENCE, next_line, script, soon, spawn};

#[tokio::test]
async fn lines_come_whole_and_clean_however_they_were_written() {
    let text = r"printf 'Inva'; sleep 0.05; printf 'lid con\033[31mfig\033[0m\r\n'; printf '\n'; printf 'last'
        printf 'ExperimentalWarning: x\n' >&2; printf '\n  \n\033[1mboom\033[0m' >&2";
    let report = soon(OsProcessHost::new().run(&script(text), PATIENCE.into()))
        .await
        .unwrap();
    assert!(report.success());
    assert_eq!(
        report.lines(OutputSource::Stdout).collect::<Vec<_>>(),
        ["Invalid config", "", "last"]
    );
    let stderr: Vec<_> = report
        .output
        .iter()
        .filter(|line| line.stream == OutputSource::Stderr)
        .collect();
    let levels: Vec<_> = stderr
        .iter()
        .map(|line| (&*line.text, line.level))
        .collect();
    assert_eq!(
        levels,
        [
            ("ExperimentalWarning: x", StderrLevel::Quiet),
            ("", StderrLevel::Warn),
            ("", StderrLevel::Warn),
            ("boom", StderrLevel::Warn),
        ]
    );
}

/// 50 MB on each pipe, and nobody reads: the child must not block, and what is kept stays small and is the end.
#[tokio::test]
async fn a_flood_that_nobody_reads_does_not_block_the_child() {
    let line = "x".repeat(198);
    let text = format!(
        "yes 'o{line}' | head -c 50000000 & yes 'e{line}' | head -c 50000000 >&2; wait; echo the end >&2; exit 7"
    );
    let child = spawn(&text).await;
    let progress = child.progress();
    let exit = soon(child.wait()).await;
    assert_eq!(exit.code, Some(7));
    let recent = child.recent_stderr();
    assert_eq!(recent.len(), FIRST_STDERR_LINES + RECENT_STDERR_LINES);
    assert_eq!(recent.last().map(String::as_str), Some("the end"));
    assert_eq!(recent[0].len(), 199);
    assert_eq!(*progress.borrow(), 2 * 250_000 + 1);
    let counts = child.output_counts();
    assert_eq!((counts.stdout, counts.warnings), (250_000, 250_001));
    assert_eq!(counts.bytes, 100_000_000 + "the end\n".len() as u64);
}

#[tokio::test]
async fn a_line_without_end_is_cut() {
    let child = spawn("head -c 3000000 /dev/zero | tr '\\0' x >&2; echo >&2; echo next >&2").await;
    soon(child.wait()).await;
    let recent = child.recent_stderr();
    assert_eq!(recent.len(), 2);
    assert_eq!(
        (recent[0].len(), recent[1].as_str()),
        (gateway_process::lines::MAX_LINE_BYTES, "next")
    );
}

#[tokio::test]
async fn the_first_reader_gets_what_was_printed_before_it_came() {
    let child = spawn("echo first; echo second").await;
    soon(child.wait()).await;
    let mut output = child.output();
    assert_eq!(
        (next_line(&mut output).await, next_line(&mut output).await),
        ("first".into(), "second".into())
    );
    assert_eq!(soon(output.next()).await, None);
    // A later one that comes after the end finds the end.
    assert_eq!(soon(child.output().next()).await, None);
}

#[tokio::test]
async fn a_reader_that_does_not_read_is_told_how_much_it_missed() {
    let child = spawn("i=0; while [ $i -lt 5000 ]; do echo $i; i=$((i+1)); done").await;
    let mut output = child.output();
    soon(child.wait()).await;
    let kept = gateway_process::output::OUTPUT_QUEUE_LINES;
    assert_eq!(
        soon(output.next()).await,
        Some(OutputEvent::Missed(5000 - kept as u64))
    );
    for n in 5000 - kept..5000 {
        assert_eq!(next_line(&mut output).await, n.to_string());
    }
    assert_eq!(soon(output.next()).await, None);
    assert_eq!(*child.progress().borrow(), 5000);
}

#[tokio::test]
async fn readers_do_not_take_lines_from_each_other() {
    let child = spawn("echo one; sleep 0.1; echo two; echo three").await;
    let mut first = child.output();
    assert_eq!(next_line(&mut first).await, "one");
    let mut second = child.output();
    assert_eq!(
        (next_line(&mut first).await, next_line(&mut first).await),
        ("two".into(), "three".into())
    );
    assert_eq!(
        (next_line(&mut second).await, next_line(&mut second).await),
        ("two".into(), "three".into())
    );
}

/// The reading task shares its only thread with the two tasks that fill its queue.
#[tokio::test]
async fn a_reader_that_keeps_reading_misses_nothing() {
    let line = "x".repeat(60);
    let child = spawn(&format!(
        "yes 'o{line}' | head -n 30000 & yes 'e{line}' | head -n 30000 >&2; wait"
    ))
    .await;
    let mut output = child.output();
    let reader = tokio::spawn(async move {
        let mut lines = 0;
        while let Some(event) = output.next().await {
            assert!(
                matches!(event, OutputEvent::Line(_)),
                "{event:?} after {lines} lines"
            );
            lines += 1;
        }
        lines
    });
    assert_eq!(soon(reader).await.unwrap(), 60_000);
}
