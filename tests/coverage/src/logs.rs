//! What cargo's test programs have said of each test.

use std::collections::BTreeMap;

/// Results by program and by name, whatever log they are in.
#[derive(Debug, Default)]
pub struct Results {
    /// Whether it passed. A test that has run several times has passed if it did each time.
    of: BTreeMap<(String, String), bool>,
}

impl Results {
    /// Adds a log.
    ///
    /// What a test prints comes between its name and its result where its output is not captured: `test NAME ... what it
    /// prints`, more lines, and the result at the beginning of a line. So a name waits for its result.
    pub fn read(&mut self, log: &str) {
        let mut program = String::new();
        let mut waiting: Option<String> = None;
        for line in log.lines() {
            if let Some(name) = program_of(line) {
                (program, waiting) = (name, None);
            } else if let Some((name, rest)) = line.strip_prefix("test ").and_then(|rest| rest.split_once(" ... ")) {
                waiting = Some(name.trim_end_matches(" - should panic").to_owned());
                self.result(&program, &mut waiting, rest);
            } else {
                self.result(&program, &mut waiting, line);
            }
        }
    }

    fn result(&mut self, program: &str, waiting: &mut Option<String>, text: &str) {
        let passed = match text.trim_end() {
            "ok" => true,
            "FAILED" => false,
            // `ignored`, `ignored, for a reason`: it has not run. Anything else is what the test prints.
            text => {
                if text.starts_with("ignored") {
                    *waiting = None;
                }
                return;
            }
        };
        if let Some(name) = waiting.take() {
            let function = name.rsplit("::").next().unwrap_or(&name).to_owned();
            let before = self.of.entry((program.to_owned(), function)).or_insert(true);
            *before &= passed;
        }
    }

    /// Whether test `PROGRAM::NAME` has passed; `None` where it has not run.
    pub fn of(&self, test: &str) -> Option<bool> {
        let (program, name) = test.split_once("::")?;
        self.of.get(&(program.to_owned(), name.to_owned())).copied()
    }
}

/// The program of `     Running tests/soak.rs (target/debug/deps/soak-0123456789abcdef)`.
fn program_of(line: &str) -> Option<String> {
    let file = line.trim_start().strip_prefix("Running ")?.split_once('(')?.1;
    let file = file.trim_end().strip_suffix(')')?.rsplit('/').next()?;
    let (name, hash) = file.rsplit_once('-')?;
    hash.bytes().all(|b| b.is_ascii_hexdigit()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "
     Running unittests src/lib.rs (target/debug/deps/hybond_core-0a1b2c)

running 3 tests
test pool::tests::guests_spread ... ok
test pool::tests::a_bug ... FAILED
test pool::tests::slow ... ignored, boots a guest

test result: FAILED. 1 passed; 1 failed; 1 ignored

     Running tests/soak.rs (/t/debug/deps/soak-00ff)
test guests_go ... Size { guests: 4 }
ok then, said the guest
test of the guest
Move { guest: \"soak01\" }
ok
test alone ... lab: up
FAILED
test cut_off ... lab: up
";

    #[test]
    fn a_test_has_the_result_that_follows_its_name() {
        let mut results = Results::default();
        results.read(LOG);
        for (test, passed) in [
            ("hybond_core::guests_spread", Some(true)),
            ("hybond_core::a_bug", Some(false)),
            ("hybond_core::slow", None),
            ("hybond_core::guests_go", None),
            ("soak::guests_go", Some(true)),
            ("soak::alone", Some(false)),
            ("soak::cut_off", None),
        ] {
            assert_eq!(results.of(test), passed, "{test}");
        }
    }

    #[test]
    fn one_failure_of_several_runs_counts_and_ignoring_does_not() {
        let mut results = Results::default();
        results.read("Running tests/a.rs (d/a-1f)\ntest t ... ignored\n");
        assert_eq!(results.of("a::t"), None);
        results.read("Running tests/a.rs (d/a-1f)\ntest t ... ok\n");
        results.read("Running tests/a.rs (d/a-1f)\ntest t ... FAILED\n");
        results.read("Running tests/a.rs (d/a-1f)\ntest t ... ok\n");
        assert_eq!(results.of("a::t"), Some(false));
    }
}
