//! What a real Node makes of its options and of the script that is loaded into it. Needs a `node` on the search path.

use std::fs;
use std::path::{Path, PathBuf};

use gateway_process::preload::{Hosts, Preload};
use gateway_process::{
    Environment, LaunchSpec, NodeOptions, OsProcessHost, OutputSource, ProcessHost,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{PATIENCE, soon};

/// The Node of this machine. A test without one says so and ends.
fn node() -> Option<PathBuf> {
    let found = which::which("node").ok();
    if found.is_none() {
        eprintln!("skipped: there is no `node` on PATH");
    }
    found
}

/// What Node prints that runs `program`, as JSON.
async fn printed(environment: Environment, program: &Path) -> Value {
    let Some(node) = node() else {
        unreachable!("the caller has found one");
    };
    let spec = LaunchSpec::new(node, environment).args([program]);
    let report = soon(OsProcessHost::new().run(&spec, PATIENCE.into()))
        .await
        .unwrap();
    assert!(report.success(), "{report:#?}");
    let lines: Vec<_> = report.lines(OutputSource::Stdout).collect();
    serde_json::from_str(&lines.concat()).unwrap_or_else(|error| panic!("{error}: {lines:?}"))
}

fn file(folder: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    path
}

#[tokio::test]
async fn a_real_node_loads_files_from_odd_places() {
    if node().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut options = NodeOptions::parse("--stack-trace-limit=7").unwrap();
    let names = [
        "plain",
        "two words",
        "  ",
        "quo\"te",
        "back\\slash",
        "\\",
        "\"",
        "\\\" x",
        "'single'",
        "漢字 🦞",
        "tab\there",
        "$HOME %PATH%",
        "--dash",
        "a=b",
    ];
    for name in names {
        let directory = folder.path().join(name);
        fs::create_dir(&directory).unwrap();
        let script = directory.join("load.cjs");
        fs::write(
            &script,
            "(globalThis.loaded ??= []).push(require('node:path').basename(__dirname))",
        )
        .unwrap();
        options.require_file(&script).unwrap();
    }
    let module = file(&folder, "module.mjs", "globalThis.loaded.push('module')");
    options
        .import(&format!("file://{}", module.display()))
        .unwrap();
    let program = file(
        &folder,
        "program.cjs",
        "console.log(JSON.stringify([globalThis.loaded, Error.stackTraceLimit]))",
    );
    let mut environment = Environment::from_parent();
    options.apply(&mut environment);
    let mut loaded: Vec<_> = names.to_vec();
    loaded.push("module");
    assert_eq!(printed(environment, &program).await, json!([loaded, 7]));
}

/// A server that answers with the headers that it got, and requests of every form to it.
const REQUESTS: &str = r#"
const http = require('node:http');
const seen = {};
const server = http.createServer((request, response) => {
  let body = '';
  request.on('data', (part) => { body += part; });
  request.on('end', () => {
    const { 'http-referer': referer, 'x-title': title, 'x-own': own } = request.headers;
    response.end(JSON.stringify({ method: request.method, body, referer, title, own }));
  });
});
server.listen(0, '127.0.0.1', async () => {
  const { port } = server.address();
  const attributed = `http://localhost:${port}/`;
  const other = `http://127.0.0.1:${port}/`;
  const ask = async (name, ...list) => { seen[name] = await (await fetch(...list)).json(); };
  await ask('text', attributed);
  await ask('url', new URL(attributed), { method: 'PUT', body: 'b' });
  await ask('own header', attributed, { headers: { 'x-title': 'Mine', 'X-Own': '1' } });
  await ask('list of headers', attributed, { headers: [['X-Own', '2']] });
  await ask('headers', attributed, { headers: new Headers({ 'HTTP-Referer': 'mine' }) });
  await ask('read once', attributed, { headers: (function* () { yield ['X-Own', '3']; })() });
  const request = new Request(attributed, { method: 'POST', body: 'of the request', headers: { 'X-Own': '4' } });
  await ask('request', request);
  seen.untouched = [...request.headers].map(([name]) => name).sort();
  await ask('request and init', new Request(attributed, { headers: { 'X-Own': '5' } }), { method: 'DELETE' });
  await ask('request and headers', new Request(attributed, { headers: { 'X-Own': '6' } }), { headers: {} });
  class Options { get method() { return 'PATCH'; } }
  await ask('options of a class', attributed, new Options());
  const frozen = Object.freeze({ headers: Object.freeze({ 'X-Own': '7' }) });
  await ask('frozen', attributed, frozen);
  await ask('other', other, { headers: { 'X-Own': '8' } });
  const error = async (...list) => { try { await fetch(...list); return 'none'; } catch (error) { return error.name; } };
  seen.errors = [
    await error(),
    await error('no address'),
    await error(attributed, { headers: null }),
    await error(attributed, { headers: { 'not a header': '' } }),
    await error(attributed, { signal: AbortSignal.abort() }),
    await error('http://localhost:1/'),
  ];
  seen.shape = [fetch.name, fetch.length, Object.keys(globalThis).includes('fetch')];
  server.close();
  server.closeAllConnections();
  console.log(JSON.stringify(seen));
});
"#;

fn attributing() -> Preload {
    let mut preload = Preload::new();
    preload
        .attribute(
            Hosts::Exactly("localhost"),
            [
                ("HTTP-Referer", "https://app.example"),
                ("X-Title", "App \"1\""),
            ],
        )
        .unwrap();
    preload
}

/// The environment of this process with the script.
fn with(preload: &Preload, folder: &TempDir) -> Environment {
    let mut environment = Environment::from_parent();
    environment.remove_proxies();
    let place = folder.path().join("a \"place\" with\\much");
    preload.apply(&mut environment, place).unwrap();
    environment
}

#[tokio::test]
async fn requests_to_chosen_hosts_say_who_asks_and_all_others_are_as_before() {
    if node().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let program = file(&folder, "program.cjs", REQUESTS);
    let mut seen = printed(with(&attributing(), &folder), &program).await;
    let mut plain = Environment::from_parent();
    plain.remove_proxies();
    let mut before = printed(plain, &program).await;
    for same in ["errors", "shape", "untouched", "other", "read once"] {
        assert_eq!(seen[same].take(), before[same].take(), "{same}");
    }
    let (referer, title) = ("https://app.example", "App \"1\"");
    let expected = json!({
        "text": {"method": "GET", "body": "", "referer": referer, "title": title},
        "url": {"method": "PUT", "body": "b", "referer": referer, "title": title},
        "own header": {"method": "GET", "body": "", "referer": referer, "title": "Mine", "own": "1"},
        "list of headers": {"method": "GET", "body": "", "referer": referer, "title": title, "own": "2"},
        "headers": {"method": "GET", "body": "", "referer": "mine", "title": title},
        "read once": null,
        "request": {"method": "POST", "body": "of the request", "referer": referer, "title": title, "own": "4"},
        "untouched": null,
        "request and init": {"method": "DELETE", "body": "", "referer": referer, "title": title, "own": "5"},
        "request and headers": {"method": "GET", "body": "", "referer": referer, "title": title},
        "options of a class": {"method": "PATCH", "body": "", "referer": referer, "title": title},
        "frozen": {"method": "GET", "body": "", "referer": referer, "title": title, "own": "7"},
        "other": null,
        "errors": null,
        "shape": null,
    });
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn hosts_are_compared_whole() {
    if node().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // In place of a network, a fetch that tells what it was asked.
    let fake = file(
        &folder,
        "fake.cjs",
        "globalThis.fetch = (input, init) => new Headers(init?.headers).get('x-title');",
    );
    let program = file(
        &folder,
        "program.cjs",
        "const hosts = ['one.example', 'ONE.example:81', 'one.example.', 'a.one.example', 'two.example', 'a.b.two.example', 'atwo.example', \
         'two.example.evil', 'xn--bcher-kva.example', 'bücher.example'];
         const all = hosts.map((host) => fetch(`https://${host}/two.example`));
         console.log(JSON.stringify([...all, fetch('ws://one.example'), fetch('data:one.example'), fetch('https://two.example@evil/')]))",
    );
    let mut preload = Preload::new();
    for (hosts, title) in [
        (Hosts::Exactly("One.example"), "1"),
        (Hosts::WithSubdomains("two.example"), "2"),
        (Hosts::Exactly("bücher.example"), "3"),
    ] {
        preload.attribute(hosts, [("X-Title", title)]).unwrap();
    }
    let mut environment = Environment::from_parent();
    let mut options = NodeOptions::new();
    options.require_file(fake).unwrap();
    options.apply(&mut environment);
    preload.apply(&mut environment, folder.path()).unwrap();
    assert_eq!(
        printed(environment, &program).await,
        json!([
            "1", "1", "1", null, "2", "2", null, null, "3", "3", null, null, null
        ])
    );
}

#[tokio::test]
async fn on_windows_programs_get_no_window_unless_the_caller_says_so() {
    if node().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // A Node that believes to be on Windows, with functions that tell what they were called with.
    let fake = file(
        &folder,
        "fake.cjs",
        "if (process.env.FAKE_PLATFORM) Object.defineProperty(process, 'platform', { value: process.env.FAKE_PLATFORM });
         const childProcess = require('node:child_process');
         const { promisify } = require('node:util');
         for (const name of ['spawn', 'spawnSync', 'exec', 'execSync', 'execFile', 'execFileSync', 'fork']) {
           const tell = (...list) => list.map((part) => typeof part === 'function' ? 'callback' : part);
           tell[promisify.custom] = name.startsWith('exec') && !name.endsWith('Sync') ? async (...list) => ['promise', ...list] : undefined;
           childProcess[name] = tell;
         }
         // A script of somebody else that is loaded earlier may have imported them already.
         try { require('./early.mjs'); } catch {}",
    );
    file(
        &folder,
        "early.mjs",
        "import 'node:child_process'; export {};",
    );
    let program = file(
        &folder,
        "program.mjs",
        "import { spawn, spawnSync, exec, execSync, execFile, execFileSync, fork } from 'node:child_process';
         import childProcess from 'node:child_process';
         import { promisify } from 'node:util';
         const own = Object.freeze({ cwd: '/' }), callback = () => {};
         console.log(JSON.stringify([
           spawn('a'), spawn('a', ['b']), spawn('a', own), spawn('a', ['b'], own), spawn('a', undefined, own), spawn('a', null),
           spawn('a', ['b'], { windowsHide: false }), spawn('a', { windowsHide: true }), spawn('a', ['b'], undefined), spawn('a', 'no list'),
           spawnSync('a', ['b']), fork('a', ['b'], own), execFileSync('a'),
           exec('a'), exec('a', callback), exec('a', own, callback), exec('a', null, callback), exec('a', { windowsHide: false }, callback),
           execSync('a', own),
           execFile('a', callback), execFile('a', ['b'], callback), execFile('a', ['b'], own, callback), execFile('a', own, callback),
           await promisify(exec)('a', own), await promisify(execFile)('a', ['b']), childProcess.spawn('a'), own,
         ]))",
    );
    let mut preload = Preload::new();
    preload.hide_windows(true);
    let of = |platform: &'static str| {
        let mut environment = Environment::from_parent();
        let mut options = NodeOptions::new();
        options.require_file(&fake).unwrap();
        options.apply(&mut environment);
        environment.set("FAKE_PLATFORM", platform);
        preload.apply(&mut environment, folder.path()).unwrap();
        environment
    };
    let (hidden, both) = (
        json!({"windowsHide": true}),
        json!({"cwd": "/", "windowsHide": true}),
    );
    let shown = json!({"windowsHide": false});
    assert_eq!(
        printed(of("win32"), &program).await,
        json!([
            ["a", hidden], ["a", ["b"], hidden], ["a", both], ["a", ["b"], both], ["a", null, both], ["a", hidden],
            ["a", ["b"], shown], ["a", hidden], ["a", ["b"], hidden], ["a", "no list"],
            ["a", ["b"], hidden], ["a", ["b"], both], ["a", hidden],
            ["a", hidden], ["a", hidden, "callback"], ["a", both, "callback"], ["a", hidden, "callback"], ["a", shown, "callback"],
            ["a", both],
            ["a", hidden, "callback"], ["a", ["b"], hidden, "callback"], ["a", ["b"], both, "callback"], ["a", both, "callback"],
            ["promise", "a", both], ["promise", "a", ["b"], hidden], ["a", hidden], {"cwd": "/"},
        ])
    );
    let elsewhere = printed(of("linux"), &program).await;
    // Those that said so themselves.
    assert_eq!(elsewhere.to_string().matches("windowsHide").count(), 3);
    assert_eq!(elsewhere[0], json!(["a"]));
}

#[tokio::test]
async fn whatever_its_variable_holds_the_gateway_starts() {
    if node().is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let program = file(
        &folder,
        "program.cjs",
        "console.log(JSON.stringify(fetch.toString().includes('native') || fetch.name))",
    );
    for broken in [
        "",
        "{",
        "null",
        "7",
        "[]",
        r#"{"attribution":7}"#,
        r#"{"attribution":[null,7,{"host":"a b","headers":{"A":"b"}}]}"#,
        r#"{"attribution":[{"host":"a","headers":{"no header":"b"}}]}"#,
        r#"{"attribution":{"__proto__":null},"hideWindows":"yes"}"#,
    ] {
        let mut environment = with(&attributing(), &folder);
        environment.set("GATEWAY_MANAGER_PRELOAD", broken);
        assert_eq!(
            printed(environment.clone(), &program).await,
            json!("fetch"),
            "{broken}"
        );
        environment.remove("GATEWAY_MANAGER_PRELOAD");
        assert_eq!(printed(environment, &program).await, json!("fetch"));
    }
}
