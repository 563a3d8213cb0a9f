//! Chance, from a seed; or choice, where every outcome is to be seen.

/// The percentage of what goes wrong in a run that is chosen: it happens if it is chosen to, and paid for. Chances of any
/// other percentage are free.
pub(crate) const MISFORTUNE: u64 = 1;

/// A small generator (SplitMix64): the same seed, the same run, on every machine.
#[derive(Debug, Clone)]
pub struct Dice {
    state: u64,
    choices: Option<Choices>,
}

/// The answers to the questions of one moment, in their order. What was not thought of is answered with no.
#[derive(Debug, Clone, Default)]
pub(crate) struct Choices {
    pub answers: Vec<bool>,
    asked: usize,
    /// How much may still go wrong.
    pub misfortunes: u8,
}

impl Choices {
    pub fn new(answers: Vec<bool>, misfortunes: u8) -> Self {
        let asked = 0;
        Self {
            answers,
            asked,
            misfortunes,
        }
    }

    fn ask(&mut self, percent: u64) -> bool {
        let wrong = percent == MISFORTUNE;
        if percent == 0 || percent >= 100 || wrong && self.misfortunes == 0 {
            return percent >= 100;
        }
        if self.asked == self.answers.len() {
            self.answers.push(false);
        }
        let yes = self.answers[self.asked];
        self.asked += 1;
        self.misfortunes -= u8::from(yes && wrong);
        yes
    }

    /// The next answers to the same questions, or to those that follow from them. `None`: all have been seen.
    pub fn next(mut self) -> Option<Vec<bool>> {
        self.answers.truncate(self.asked);
        while self.answers.pop()? {}
        self.answers.push(true);
        Some(self.answers)
    }
}

impl Dice {
    /// From a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            state: seed,
            choices: None,
        }
    }

    /// From now on by choice.
    pub(crate) fn choose(&mut self, choices: Choices) {
        self.choices = Some(choices);
    }

    /// What was chosen.
    pub(crate) fn chosen(&mut self) -> Option<Choices> {
        self.choices.take()
    }

    /// Nothing is left to chance.
    pub(crate) fn is_chosen(&self) -> bool {
        self.choices.is_some()
    }

    /// The next number.
    pub fn roll(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of `n`.
    pub fn pick(&mut self, n: usize) -> usize {
        (self.roll() % n.max(1) as u64) as usize
    }

    /// True in `percent` of a hundred cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        match &mut self.choices {
            Some(choices) => choices.ask(percent),
            None => self.roll() % 100 < percent,
        }
    }

    /// True in `of` of a thousand cases.
    pub fn rarely(&mut self, of: u64) -> bool {
        match &mut self.choices {
            Some(choices) => choices.ask(of),
            None => self.roll() % 1000 < of,
        }
    }

    /// Between `from` and `to`. Who chooses decides the order of what happens, not how long it takes.
    pub fn between(&mut self, from: u64, to: u64) -> u64 {
        match &self.choices {
            Some(_) => to,
            None => from + self.roll() % (to - from + 1),
        }
    }
}
