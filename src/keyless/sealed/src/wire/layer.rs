//! The layers of the sandbox, and how an operator names the ones to go without.

use std::fmt;

use super::WireError;

/// One layer of the sandbox. All are required; [`Layer::name`] after `--without` is an exception.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Layer {
    /// Nobody of the same user reads its memory or traces it, and there is no core dump.
    NotDumpable = 0,
    /// No exec gives it more than it has.
    NoNewPrivileges = 1,
    /// Every descriptor but 0, 1 and 2 was closed.
    Descriptors = 2,
    /// No further descriptor than the one passed, no process, no file content, no memory beyond its own.
    Limits = 3,
    /// Not root, no supplementary group.
    Unprivileged = 4,
    /// No capability, in any set.
    Capabilities = 5,
    /// Landlock: no file; and as far as the kernel has it, no TCP, no signal, no abstract socket.
    Landlock = 6,
    /// A list of the system calls that the flow needs; any other kills the process.
    Seccomp = 7,
}

impl Layer {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::NotDumpable,
        Self::NoNewPrivileges,
        Self::Descriptors,
        Self::Limits,
        Self::Unprivileged,
        Self::Capabilities,
        Self::Landlock,
        Self::Seccomp,
    ];

    /// What configuration and `--without` call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NotDumpable => "not-dumpable",
            Self::NoNewPrivileges => "no-new-privileges",
            Self::Descriptors => "descriptors",
            Self::Limits => "limits",
            Self::Unprivileged => "unprivileged",
            Self::Capabilities => "capabilities",
            Self::Landlock => "landlock",
            Self::Seccomp => "seccomp",
        }
    }

    /// The layer of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|layer| layer.name() == name)
    }

    const fn bit(self) -> u16 {
        1 << self as u8
    }
}

/// A set of layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layers(u16);

impl Layers {
    /// Every layer.
    pub fn all() -> Self {
        Layer::ALL.into_iter().collect()
    }

    /// Whether this one is in it.
    pub const fn contains(self, layer: Layer) -> bool {
        self.0 & layer.bit() != 0
    }

    /// Takes one in.
    pub const fn insert(&mut self, layer: Layer) {
        self.0 |= layer.bit();
    }

    /// Those that are in it.
    pub fn iter(self) -> impl Iterator<Item = Layer> {
        Layer::ALL.into_iter().filter(move |layer| self.contains(*layer))
    }

    /// Those that are not in it.
    pub fn missing(self) -> Self {
        Self(Self::all().0 & !self.0)
    }

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) const fn bits(self) -> u16 {
        self.0
    }

    pub(super) fn from_bits(bits: u16) -> Option<Self> {
        (bits & !Self::all().0 == 0).then_some(Self(bits))
    }
}

impl FromIterator<Layer> for Layers {
    fn from_iter<I: IntoIterator<Item = Layer>>(layers: I) -> Self {
        layers.into_iter().fold(Self::default(), |mut set, layer| {
            set.insert(layer);
            set
        })
    }
}

impl fmt::Display for Layers {
    /// Their names, with commas between.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, layer) in self.iter().enumerate() {
            if position > 0 {
                f.write_str(", ")?;
            }
            f.write_str(layer.name())?;
        }
        Ok(())
    }
}

/// The helper's arguments for these exceptions: `--without NAME` for each.
pub fn arguments(exceptions: Layers) -> Vec<&'static str> {
    exceptions.iter().flat_map(|layer| [WITHOUT, layer.name()]).collect()
}

/// Reads the helper's arguments, the program's name not among them.
///
/// # Errors
/// Whatever is not `--without` and a layer's name.
pub fn exceptions<S: AsRef<str>>(arguments: impl IntoIterator<Item = S>) -> Result<Layers, WireError> {
    let mut arguments = arguments.into_iter();
    let mut layers = Layers::default();
    while let Some(argument) = arguments.next() {
        let name = arguments.next().filter(|_| argument.as_ref() == WITHOUT).ok_or(WireError::Value("argument"))?;
        layers.insert(Layer::from_name(name.as_ref()).ok_or(WireError::Value("name of a layer"))?);
    }
    Ok(layers)
}

const WITHOUT: &str = "--without";
