//! Which file imports from which: the module tree of a crate in, an import graph of its files out.
//!
//! Follows `mod` items from the crate's root, so test modules and what only they declare are left
//! out. A path counts where it is written: in a `use`, in code and in a macro's arguments. It is
//! resolved through aliases and re-exports to the file that defines the item.
//!
//! Limits: methods need no import and aren't seen; names that macros make up aren't, either.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};
use syn::{Attribute, Item, UseTree};

/// Segments of a path from the crate's root, without `crate`.
type ModulePath = Vec<String>;

/// What one module, in a file of its own or inline, declares and imports.
#[derive(Default)]
struct Module {
    file: String,
    children: BTreeSet<String>,
    /// Names of items that are defined here.
    items: BTreeSet<String>,
    /// Name in scope -> the path it was imported by, as written.
    aliases: BTreeMap<String, Vec<String>>,
    /// Paths imported with `*`, as written.
    globs: Vec<Vec<String>>,
    /// Paths in code, as written.
    paths: Vec<Vec<String>>,
}

/// The modules of one crate.
pub(crate) struct Crate {
    modules: BTreeMap<ModulePath, Module>,
}

/// One file's import of an item: which file it is in, and by which absolute path it was reached.
pub(crate) struct Import {
    /// The importing file.
    pub(crate) from: String,
    /// The file that defines the item, or the module's file if only a module is named.
    pub(crate) to: String,
    /// Absolute path of the item as written, without `crate`.
    pub(crate) path: Vec<String>,
    from_module: ModulePath,
    to_module: ModulePath,
    /// The path names a module itself, nothing that is defined in it.
    names_module: bool,
}

impl Import {
    /// Whether one module is inside the other.
    fn is_within_one_module(&self) -> bool {
        self.from_module.starts_with(&self.to_module)
            || self.to_module.starts_with(&self.from_module)
    }
}

impl Crate {
    /// Reads the crate whose sources are in `folder`, a path from the repository's root.
    pub(crate) fn read(folder: &str) -> Self {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
        let roots = ["lib.rs", "main.rs"].map(|name| format!("{folder}/{name}"));
        let root = roots.into_iter().find(|path| repository.join(path).exists()).unwrap();
        let mut modules = BTreeMap::new();
        read_file(&mut modules, &[], &root, Path::new(folder));
        Self { modules }
    }

    /// All imports of the crate's own items.
    pub(crate) fn imports(&self) -> Vec<Import> {
        let mut imports = Vec::new();
        for (at, module) in &self.modules {
            let written = module.aliases.values().chain(&module.globs).chain(&module.paths);
            for written in written {
                let Some(path) = self.absolute(at, written, 0) else { continue };
                let (to_module, names_module) = self.locate(&path, 0);
                imports.push(Import {
                    from: module.file.clone(),
                    to: self.modules[&to_module].file.clone(),
                    path,
                    from_module: at.clone(),
                    to_module,
                    names_module,
                });
            }
        }
        imports
    }

    /// Groups of files that import from each other in a circle. A module and its parts may.
    pub(crate) fn circles(&self) -> Vec<Vec<String>> {
        let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for import in self.imports() {
            let counts = !import.names_module && !import.is_within_one_module();
            if counts && import.from != import.to {
                graph.entry(import.from).or_default().insert(import.to);
            }
        }
        let reached: BTreeMap<&String, BTreeSet<&String>> =
            graph.keys().map(|file| (file, reachable(&graph, file))).collect();
        let mut circles = BTreeSet::new();
        for (file, others) in &reached {
            let both_ways = |other: &&String| reached.get(other).is_some_and(|r| r.contains(file));
            let circle: Vec<String> =
                others.iter().copied().filter(both_ways).map(String::clone).collect();
            if circle.len() > 1 {
                circles.insert(circle);
            }
        }
        circles.into_iter().collect()
    }

    /// The absolute form of a path that is written in module `at`; `None` if it leads out of the
    /// crate or starts with something local.
    fn absolute(&self, at: &[String], written: &[String], depth: usize) -> Option<Vec<String>> {
        assert!(depth < 32, "aliases that name each other: {written:?}");
        let (first, rest) = written.split_first()?;
        let mut base = at.to_vec();
        match first.as_str() {
            "crate" => base.clear(),
            "self" => {}
            "super" => {
                base.pop()?;
                if rest.first().is_some_and(|next| next == "super") {
                    return self.absolute(&base, rest, depth + 1);
                }
            }
            name => {
                let module = self.modules.get(at)?;
                if module.children.contains(name) {
                    base.push(name.to_owned());
                } else {
                    let alias = module.aliases.get(name)?;
                    // `use name;` and `use name::self` lead nowhere else.
                    if alias.first() == Some(first) {
                        return None;
                    }
                    base = self.absolute(at, alias, depth + 1)?;
                }
            }
        }
        base.extend(rest.iter().cloned());
        Some(base)
    }

    /// The module that defines what an absolute path names, and whether it names just that module.
    fn locate(&self, path: &[String], depth: usize) -> (ModulePath, bool) {
        assert!(depth < 32, "re-exports that name each other: {path:?}");
        let mut at = ModulePath::new();
        for (index, segment) in path.iter().enumerate() {
            let module = &self.modules[&at];
            if module.children.contains(segment) {
                at.push(segment.clone());
                // A test module has no place in the tree.
                if !self.modules.contains_key(&at) {
                    at.pop();
                    return (at, true);
                }
                continue;
            }
            if module.items.contains(segment) {
                return (at, false);
            }
            let rest = &path[index + 1..];
            if let Some(alias) = module.aliases.get(segment)
                && let Some(mut target) = self.absolute(&at, alias, depth + 1)
            {
                target.extend(rest.iter().cloned());
                return self.locate(&target, depth + 1);
            }
            for glob in &module.globs {
                let Some(mut target) = self.absolute(&at, glob, depth + 1) else { continue };
                let holds = self.modules.get(&target).is_some_and(|module| {
                    module.items.contains(segment) || module.aliases.contains_key(segment)
                });
                if holds {
                    target.extend(path[index..].iter().cloned());
                    return self.locate(&target, depth + 1);
                }
            }
            return (at, false);
        }
        (at, true)
    }
}

fn reachable<'a>(
    graph: &'a BTreeMap<String, BTreeSet<String>>,
    from: &str,
) -> BTreeSet<&'a String> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&str> = vec![from];
    while let Some(file) = open.pop() {
        for next in graph.get(file).into_iter().flatten() {
            if reached.insert(next) {
                open.push(next);
            }
        }
    }
    reached
}

/// Reads a module's file and the files of its children. `folder` is where the children's files are.
fn read_file(modules: &mut BTreeMap<ModulePath, Module>, at: &[String], file: &str, folder: &Path) {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(repository.join(file)).unwrap();
    let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
    read_module(modules, at, file, folder, &parsed.items);
}

fn read_module(
    modules: &mut BTreeMap<ModulePath, Module>,
    at: &[String],
    file: &str,
    folder: &Path,
    items: &[Item],
) {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut module = Module { file: file.to_owned(), ..Module::default() };
    for item in items.iter().filter(|item| !attributes(item).iter().any(is_test)) {
        if let Item::Mod(inner) = item {
            let name = inner.ident.to_string();
            module.children.insert(name.clone());
            let inner_folder: PathBuf = folder.join(&name);
            let at = [at, std::slice::from_ref(&name)].concat();
            if let Some((_, items)) = &inner.content {
                read_module(modules, &at, file, &inner_folder, items);
            } else {
                let files = [folder.join(format!("{name}.rs")), inner_folder.join("mod.rs")];
                let file = files.iter().find(|path| repository.join(path).exists()).unwrap();
                read_file(modules, &at, &file.to_string_lossy(), &inner_folder);
            }
            continue;
        }
        module.items.extend(name_of(item));
        Reader { module: &mut module }.visit_item(item);
    }
    modules.insert(at.to_vec(), module);
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn is_test(attribute: &Attribute) -> bool {
    let syn::Meta::List(list) = &attribute.meta else { return false };
    list.path.is_ident("cfg") && list.tokens.to_string() == "test"
}

fn name_of(item: &Item) -> Option<String> {
    let name = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        _ => return None,
    };
    Some(name.to_string())
}

/// Collects what a module's items import and name.
struct Reader<'a> {
    module: &'a mut Module,
}

impl Reader<'_> {
    fn read_use(&mut self, before: &[String], tree: &UseTree) {
        match tree {
            UseTree::Path(part) => {
                let path = [before, &[part.ident.to_string()]].concat();
                self.read_use(&path, &part.tree);
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.read_use(before, tree);
                }
            }
            UseTree::Glob(_) => self.module.globs.push(before.to_vec()),
            UseTree::Name(name) => self.read_name(before, &name.ident, &name.ident),
            UseTree::Rename(rename) => self.read_name(before, &rename.ident, &rename.rename),
        }
    }

    fn read_name(&mut self, before: &[String], name: &syn::Ident, alias: &syn::Ident) {
        let mut path = before.to_vec();
        // `use a::{self, b}` imports `a`.
        if name != "self" {
            path.push(name.to_string());
        }
        let alias = if alias == "self" { path.last().cloned() } else { Some(alias.to_string()) };
        match alias {
            // `use Trait as _` brings no name, but imports.
            Some(alias) if alias == "_" => self.module.paths.push(path),
            Some(alias) => drop(self.module.aliases.insert(alias, path)),
            None => {}
        }
    }

    /// Paths in the arguments of a macro, which are tokens: names with `::` between them.
    fn read_tokens(&mut self, tokens: &str) {
        let part_of_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
        // Printed tokens have spaces around `::`.
        let tokens = tokens.replace(" :: ", "::");
        for word in tokens.split(|c| !part_of_path(c)).filter(|word| word.contains("::")) {
            let names = word.split("::").filter(|name| !name.is_empty());
            self.module.paths.push(names.map(str::to_owned).collect());
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.read_use(&[], &item.tree);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if !function.attrs.iter().any(is_test) {
            visit::visit_impl_item_fn(self, function);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names = path.segments.iter().map(|segment| segment.ident.to_string());
        self.module.paths.push(names.collect());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.read_tokens(&call.tokens.to_string());
        visit::visit_macro(self, call);
    }
}
