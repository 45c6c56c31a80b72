//! Finds the working directory, the compiler that the command names, and mesh's own files (DO).
//!
//! By the rules of `cmd::find`, which says why it found nothing; this one leaves that to it.

use crate::env;
use crate::kernel::{self, Start};
use crate::launch::names;
use crate::words::{PATH_BYTES_MAX, Path};

const KIND: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
const EXECUTABLE: u32 = 0o111;

/// A path and the identity of what is there.
pub(crate) struct Found {
    /// Absolute.
    pub(crate) path: Path,
    /// Device and inode.
    pub(crate) id: (u64, u64),
}

/// `PWD` if it is the working directory, else the real path: as compilers do it.
pub(crate) fn working_directory(start: &Start) -> Option<Found> {
    let id = kernel::stat(c".")?.id;
    let said = start.var("PWD").filter(|path| path.first() == Some(&b'/')).and_then(|path| Path::of(&[path]));
    if let Some(path) = said.filter(|path| kernel::stat(path.as_c()).is_some_and(|meta| meta.id == id)) {
        return Some(Found { path, id });
    }
    let mut buffer = [0; PATH_BYTES_MAX];
    Some(Found { path: Path::of(&[kernel::getcwd(&mut buffer)?])?, id })
}

/// The running program, as far as it is known.
struct Own {
    /// Its identity.
    id: Option<(u64, u64)>,
    /// That of the `mesh` beside it.
    mesh: Option<(u64, u64)>,
    /// That of the `mesh-cc` beside it, if it has another name itself.
    mesh_cc: Option<(u64, u64)>,
    /// Where its `mesh` would be.
    path_of_mesh: Option<Path>,
}

impl Own {
    fn find() -> Self {
        let mut buffer = [0; PATH_BYTES_MAX];
        let own = kernel::readlink(c"/proc/self/exe", &mut buffer).unwrap_or_default();
        let name = names::basename(own);
        let folder = own.get(..own.len() - name.len()).filter(|folder| !folder.is_empty());
        let beside = |name: &str| Path::of(&[folder?, name.as_bytes()]);
        let id = |path: &Path| kernel::stat(path.as_c()).map(|meta| meta.id);
        let (path_of_mesh, has_its_name) = (beside(names::MESH), name == names::MESH_CC.as_bytes());
        Self {
            id: kernel::stat(c"/proc/self/exe").map(|meta| meta.id),
            mesh: path_of_mesh.as_ref().and_then(id),
            mesh_cc: beside(names::MESH_CC).filter(|_| !has_its_name).as_ref().and_then(id),
            path_of_mesh,
        }
    }
}

/// The `mesh` beside this program, unless that is a link back to this program.
pub(crate) fn mesh() -> Option<Path> {
    let own = Own::find();
    own.path_of_mesh.filter(|_| own.mesh.is_some() && own.mesh != own.id)
}

/// Looks the first argument up as a shell would: by path if it has a slash, else along `PATH`; links that lead to mesh do
/// not count, so that a directory of such links may come first.
pub(crate) fn compiler(start: &Start) -> Option<Found> {
    let program = start.argv().get(1)?.bytes();
    let own = Own::find();
    let is_own = |id| [own.id, own.mesh, own.mesh_cc].contains(&Some(id));
    let fits = |path: Path| {
        let meta = kernel::stat(path.as_c())?;
        let compiler = meta.mode & KIND == REGULAR && meta.mode & EXECUTABLE != 0 && !is_own(meta.id);
        compiler.then_some(Found { path, id: meta.id })
    };
    // Most paths are absolute, and the working directory costs two calls.
    let base = |path: &[u8]| match path.first() {
        Some(b'/') => Path::of(&[]),
        _ => working_directory(start).map(|found| found.path),
    };
    if program.contains(&b'/') {
        return fits(base(program)?.join(program)?);
    }
    let along = start.var("PATH").unwrap_or(names::PATH_DEFAULT.as_bytes());
    along.split(|byte| *byte == b':').find_map(|dir| fits(base(dir)?.join(dir)?.join(program)?))
}

/// The agent's socket, by the rules of `places`; `None` where they name no place for mesh's files at all.
pub(crate) fn socket(start: &Start) -> Option<Path> {
    use crate::launch::socket::{self, Runtime};
    let runtime = socket::runtime(start.var(env::DIR), start.var("XDG_RUNTIME_DIR"));
    let one = matches!(runtime, Runtime::InOne(_));
    if !one && socket::absolute(start.var("HOME")).is_none() {
        return None;
    }
    if let Some(path) = socket::absolute(start.var(env::SOCKET)) {
        return Path::of(&[path]);
    }
    let folder = match runtime {
        Runtime::InOne(dir) => Path::of(&[dir])?.join(b"run")?,
        Runtime::InBase(base) => Path::of(&[base])?.join(b"mesh")?,
        Runtime::OfUser => {
            let mut digits = [0; 10];
            let uid = crate::words::decimal(start.uid, &mut digits);
            let user = Path::of(&[b"/run/user/", uid])?;
            if kernel::exists(user.as_c()) { user.join(b"mesh")? } else { Path::of(&[b"/tmp/mesh-", uid])? }
        }
    };
    folder.join(socket::NAME.as_bytes())
}
