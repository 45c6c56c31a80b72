use mesh::compiler::{invocation::Family, plan::*};
use mesh::inputs::{Closure, Graph, Want};
use std::collections::*;
use std::process::Command;
fn cpu() -> f64 {
    let r = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    r.tv_sec as f64 * 1e3 + r.tv_nsec as f64 / 1e6
}
fn words(s: &str) -> Vec<String> {
    // shell-ish
    let mut v = vec![];
    let mut cur = String::new();
    let mut q = None;
    let mut any = false;
    let mut it = s.chars().peekable();
    while let Some(c) = it.next() {
        match (q, c) {
            (None, ' ') => {
                if any {
                    v.push(std::mem::take(&mut cur));
                    any = false;
                }
            }
            (None, '\'') | (None, '"') => {
                q = Some(c);
                any = true;
            }
            (Some(x), c) if x == c => q = None,
            (None, '\\') | (Some('"'), '\\') => {
                cur.push(it.next().unwrap());
                any = true;
            }
            (_, c) => {
                cur.push(c);
                any = true;
            }
        }
    }
    if any {
        v.push(cur);
    }
    v
}
fn dirs(cc: &str, args: &[String], lang: &str) -> Vec<Vec<u8>> {
    let o =
        Command::new(cc).args(args).args(["-E", "-v", "-x", lang, "/dev/null"]).env("LC_ALL", "C").output().unwrap();
    let t = String::from_utf8(o.stderr).unwrap();
    let l = t.split_once("#include <...> search starts here:\n").unwrap().1.split_once("End of search").unwrap().0;
    l.lines().map(|l| l.trim().as_bytes().to_vec()).collect()
}
struct Unit {
    plan: Plan,
    cwd: Vec<u8>,
    sys: Vec<Vec<u8>>,
    cc: String,
    args: Vec<String>,
}
fn main() {
    let name = std::env::args().nth(1).unwrap();
    let clang = std::env::args().nth(2).is_some_and(|a| a == "clang");
    let list: Vec<serde_json::Value> =
        serde_json::from_slice(&std::fs::read(format!("/var/tmp/mesh-lab/corpora/{name}/list.json")).unwrap()).unwrap();
    let mut sysdirs: HashMap<String, Vec<Vec<u8>>> = HashMap::new();
    let units: Vec<Unit> = list
        .iter()
        .map(|e| {
            let dir = e["dir"].as_str().unwrap().to_string();
            let mut cc = e["cc"].as_str().unwrap().to_string();
            let lang = if cc == "g++" { "c++" } else { "c" };
            if clang {
                cc = if cc == "g++" { "clang++".into() } else { "clang".into() };
            }
            let flags: Vec<String> = match &e["flags"] {
                serde_json::Value::String(s) => words(s),
                v => v.as_array().unwrap().iter().map(|x| x.as_str().unwrap().into()).collect(),
            };
            let mut s = Search::default();
            let mut defines = vec![];
            let mut forced = vec![];
            let mut i = 0;
            while i < flags.len() {
                let f = &flags[i];
                if f == "-isystem" {
                    i += 1;
                    s.system.push(flags[i].clone().into_bytes());
                } else if f == "-include" {
                    i += 1;
                    forced.push(flags[i].clone().into_bytes());
                } else if f == "-I" {
                    i += 1;
                    s.user.push(flags[i].clone().into_bytes());
                } else if let Some(d) = f.strip_prefix("-I") {
                    s.user.push(d.as_bytes().to_vec());
                } else if let Some(d) = f.strip_prefix("-D") {
                    let (n, b) = d.split_once('=').unwrap_or((d, "1"));
                    defines.push((n.as_bytes().to_vec(), b.as_bytes().to_vec()));
                }
                i += 1;
            }
            let sys = sysdirs.entry(cc.clone()).or_insert_with(|| dirs(&cc, &[], lang)).clone();
            let source = e["src"].as_str().unwrap().to_string();
            let obj = e["obj"].as_str().unwrap().to_string();
            let mut args = flags.clone();
            args.push(source.clone());
            let plan = Plan {
                language: if lang == "c++" { Language::Cxx } else { Language::C },
                source: source.into_bytes(),
                output: obj.into_bytes(),
                side_outputs: vec![],
                deps: Deps::None,
                search: s,
                forced_includes: forced,
                defines,
                extra_inputs: vec![],
                suspects: vec![],
                native: vec![],
                epoch_fixed: false,
            };
            Unit { plan, cwd: dir.into_bytes(), sys, cc, args }
        })
        .collect();
    let mut g = Graph::new();
    let arr = g.arrivals();
    let fam = if clang { Family::Clang } else { Family::Gcc };
    let run = |g: &mut Graph, u: &Unit, t| {
        g.closure(&Want { plan: &u.plan, cwd: &u.cwd, env: &[], system_dirs: &u.sys, family: fam, requested_at: t })
    };
    for (what, share) in
        [("cold", false), ("warm+stat", false), ("warm+stat", false), ("shared", true), ("shared", true)]
    {
        let t0 = cpu();
        let mut n = 0;
        let mut bad = BTreeMap::new();
        let shared = arr.arrive();
        let mut times = vec![];
        for u in &units {
            let a = cpu();
            let t = if share { shared } else { arr.arrive() };
            match run(&mut g, u, t) {
                Ok(c) => n += c.entries.len(),
                Err(e) => *bad.entry(e.to_string()).or_insert(0) += 1,
            }
            times.push(cpu() - a);
        }
        times.sort_by(f64::total_cmp);
        println!(
            "{what:10} {:.3} ms/unit (median {:.3}, max {:.3}), {} entries/unit, {bad:?}",
            (cpu() - t0) / units.len() as f64,
            times[times.len() / 2],
            times[times.len() - 1],
            n / units.len()
        );
    }
    let t = arr.arrive();
    let cs: Vec<(Option<Closure>, &Unit)> = units.iter().map(|u| (run(&mut g, u, t).ok(), u)).collect();
    let t0 = cpu();
    let mut ok = 0;
    for (c, u) in &cs {
        if let Some(c) = c {
            ok += usize::from(g.still_fresh(
                &Want {
                    plan: &u.plan,
                    cwd: &u.cwd,
                    env: &[],
                    system_dirs: &u.sys,
                    family: fam,
                    requested_at: arr.arrive(),
                },
                c,
            ));
        }
    }
    println!("still_fresh {:.3} ms/unit, {ok} fresh", (cpu() - t0) / cs.len() as f64);
    if std::env::args().any(|a| a == "check") {
        let (mut missed, mut total, mut have_n) = (0, 0, 0);
        for (c, u) in cs.iter() {
            let Some(c) = c else {
                println!("no closure {}", String::from_utf8_lossy(&u.plan.source));
                continue;
            };
            let have: BTreeSet<Vec<u8>> = c.entries.iter().map(|e| e.entry.path.as_bytes().to_vec()).collect();
            let o = Command::new(&u.cc)
                .current_dir(std::str::from_utf8(&u.cwd).unwrap())
                .arg("-M")
                .args(&u.args)
                .output()
                .unwrap();
            assert!(o.status.success(), "{}", String::from_utf8_lossy(&o.stderr));
            let t = String::from_utf8(o.stdout).unwrap().replace("\\\n", " ");
            have_n += c.entries.iter().filter(|e| matches!(e.entry.node, mesh_proto::closure::Node::File(_))).count();
            for p in t.split_once(':').unwrap().1.split_whitespace() {
                total += 1;
                let real =
                    std::fs::canonicalize(std::path::Path::new(std::str::from_utf8(&u.cwd).unwrap()).join(p)).unwrap();
                if !have.contains(real.as_os_str().as_encoded_bytes()) {
                    missed += 1;
                    println!("MISSED {p} in {}", String::from_utf8_lossy(&u.plan.source));
                }
            }
        }
        println!("missed={missed} of {total}; {have_n} files in closures");
    }
}
