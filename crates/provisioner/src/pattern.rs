//! Where a volume's directory lies: a pattern of the class, filled in for a claim, and a path that
//! cannot leave its root.

use std::fmt;

use bitts_api::{Claim, Name};
use serde::{Deserialize, Serialize};

/// The directory at a root that is bitts' own.
pub const OWN: &str = ".bitts";
/// The longest name of a directory.
const LONGEST: usize = 255;
/// The most directories one below the other.
const DEEPEST: usize = 16;

/// A path below a root: one or more names, none of which leads elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Box<str>", into = "Box<str>")]
pub struct Subpath(Box<str>);

/// Why a text is no path below a root.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubpathError {
    /// A name that leads elsewhere, or nowhere.
    #[error("{0:?} cannot be part of the path of a directory")]
    Name(String),
    /// A name that no file system takes.
    #[error("the name {0:?} is longer than 255 bytes")]
    Long(String),
    /// Too many names.
    #[error("a path of more than 16 directories")]
    Deep,
}

impl TryFrom<Box<str>> for Subpath {
    type Error = SubpathError;
    fn try_from(text: Box<str>) -> Result<Self, SubpathError> {
        for name in text.split('/') {
            let elsewhere = matches!(name, "" | "." | "..") || name == OWN;
            if elsewhere || name.contains(char::is_control) {
                return Err(SubpathError::Name(name.to_owned()));
            }
            if name.len() > LONGEST {
                return Err(SubpathError::Long(name.to_owned()));
            }
        }
        if text.split('/').count() > DEEPEST {
            return Err(SubpathError::Deep);
        }
        Ok(Self(text))
    }
}

impl From<Subpath> for Box<str> {
    fn from(path: Subpath) -> Self {
        path.0
    }
}

impl Subpath {
    /// The names, from the root on.
    pub fn names(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }

    /// Whether one of the two lies within the other, or they are the same.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.names().zip(other.names()).all(|(a, b)| a == b)
    }

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Subpath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How directories are named. The last name holds the volume's name or the claim's uid, so that no
/// two claims get the same directory, and none one in which another's can lie.
///
/// ```
/// use bitts_provisioner::Pattern;
///
/// assert!(Pattern::read("${pvc.namespace}/${pvc.name}-${pv.name}").is_ok());
/// let error = Pattern::read("${pvc.namespace}/${pvc.name}").unwrap_err().to_string();
/// assert!(error.contains("${pv.name}"), "{error}");
/// assert!(Pattern::read("../${pv.name}").is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Box<[Piece]>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    Namespace,
    ClaimName,
    ClaimUid,
    VolumeName,
    Label(Box<str>),
}

/// Why a pattern cannot be used, or not for a claim.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// A variable that there is none of.
    #[error(
        "${{{0}}} is none of ${{pvc.namespace}}, ${{pvc.name}}, ${{pvc.uid}}, ${{pv.name}} and \
         ${{pvc.labels.KEY}}"
    )]
    Unknown(String),
    /// A variable without an end.
    #[error("\"${{\" without \"}}\" behind it")]
    Open,
    /// Two claims might get the same directory.
    #[error(
        "its last name must hold ${{pv.name}} or ${{pvc.uid}}: no two claims may share a directory"
    )]
    NotUnique,
    /// What it leads to.
    #[error(transparent)]
    Path(#[from] SubpathError),
    /// The claim lacks a label.
    #[error("the claim has no {0}")]
    Missing(String),
    /// The claim's value would be more than one name.
    #[error("the claim's {what} {value:?} cannot be part of a directory's name")]
    Value {
        /// Which.
        what: String,
        /// What it says.
        value: String,
    },
}

impl Default for Pattern {
    /// `${pvc.namespace}-${pvc.name}-${pv.name}`.
    fn default() -> Self {
        let dash = || Piece::Text("-".into());
        Self(
            [
                Piece::Namespace,
                dash(),
                Piece::ClaimName,
                dash(),
                Piece::VolumeName,
            ]
            .into(),
        )
    }
}

impl Pattern {
    /// Reads a pattern as a class has it. The spellings of csi-driver-nfs
    /// (`${pvc.metadata.name}`) and nfs-subdir-external-provisioner (`${.PVC.name}`) are read too.
    ///
    /// # Errors
    /// When it has an unknown variable, might give two claims one directory, or leads elsewhere.
    pub fn read(text: &str) -> Result<Self, PatternError> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            let (variable, after) = after.split_once('}').ok_or(PatternError::Open)?;
            if !before.is_empty() {
                pieces.push(Piece::Text(before.into()));
            }
            pieces.push(Piece::read(variable)?);
            rest = after;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.into()));
        }
        let pattern = Self(pieces.into());
        // What no claim can change must be right for every claim.
        pattern.fill(|piece| Ok(piece.sample()))?;
        if !pattern.last_name_is_unique() {
            return Err(PatternError::NotUnique);
        }
        Ok(pattern)
    }

    /// The directory of a claim's volume.
    ///
    /// # Errors
    /// When the claim lacks what the pattern needs, or has what cannot be part of a name.
    pub fn path(&self, claim: &Claim, volume: &Name) -> Result<Subpath, PatternError> {
        let path = self.fill(|piece| piece.value(claim, volume));
        match path {
            // Names of claims and namespaces may add up to more than fits; the volume's never does.
            Err(PatternError::Path(SubpathError::Long(_))) if *self == Self::default() => {
                Ok(Subpath::try_from(Box::<str>::from(volume.as_str()))?)
            }
            path => path,
        }
    }

    fn fill(
        &self,
        value: impl Fn(&Piece) -> Result<String, PatternError>,
    ) -> Result<Subpath, PatternError> {
        let parts: Result<Vec<String>, _> = self.0.iter().map(value).collect();
        Ok(Subpath::try_from(parts?.concat().into_boxed_str())?)
    }

    fn last_name_is_unique(&self) -> bool {
        for piece in self.0.iter().rev() {
            match piece {
                Piece::VolumeName | Piece::ClaimUid => return true,
                Piece::Text(text) if text.contains('/') => return false,
                _ => {}
            }
        }
        false
    }
}

impl Piece {
    fn read(variable: &str) -> Result<Self, PatternError> {
        let unknown = || PatternError::Unknown(variable.to_owned());
        let (object, field) = variable
            .trim_start_matches('.')
            .split_once('.')
            .ok_or_else(unknown)?;
        let field = field.strip_prefix("metadata.").unwrap_or(field);
        let of_claim = object.eq_ignore_ascii_case("pvc");
        let label = field.strip_prefix("labels.").filter(|key| !key.is_empty());
        match field {
            "namespace" if of_claim => Ok(Self::Namespace),
            "name" if of_claim => Ok(Self::ClaimName),
            "uid" if of_claim => Ok(Self::ClaimUid),
            "name" if object.eq_ignore_ascii_case("pv") => Ok(Self::VolumeName),
            _ => (label.filter(|_| of_claim))
                .map(|key| Self::Label(key.into()))
                .ok_or_else(unknown),
        }
    }

    fn sample(&self) -> String {
        match self {
            Self::Text(text) => text.to_string(),
            _ => "x".to_owned(),
        }
    }

    fn value(&self, claim: &Claim, volume: &Name) -> Result<String, PatternError> {
        let meta = &claim.meta;
        let (what, value) = match self {
            Self::Text(text) => return Ok(text.to_string()),
            Self::Namespace => {
                let namespace = meta.namespace.as_ref().map(|n| n.as_str());
                ("namespace".to_owned(), namespace.map(str::to_owned))
            }
            Self::ClaimName => ("name".to_owned(), Some(meta.name.to_string())),
            Self::ClaimUid => ("uid".to_owned(), Some(meta.uid.to_string())),
            Self::VolumeName => ("volume".to_owned(), Some(volume.to_string())),
            Self::Label(key) => (
                format!("label {key}"),
                meta.labels.get(key).map(str::to_owned),
            ),
        };
        let value = value.ok_or_else(|| PatternError::Missing(what.clone()))?;
        if value.is_empty() || value.contains('/') || value.contains(char::is_control) {
            return Err(PatternError::Value { what, value });
        }
        Ok(value)
    }
}
