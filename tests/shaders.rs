//! Proves that every shader, as it is put together for each variant, is valid; that structs and constants which both
//! sides know are the same; that kernels have one name on both sides; and that shaders keep the rules of the house: no
//! float operation outside the edges, no loop without a bound, no more workgroup memory than every device has.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use naga::proc::{Layouter, TypeLayout};
use naga::valid::{Capabilities, ValidationFlags, Validator};
use naga::{AddressSpace, Expression, Handle, Literal, Module, ScalarKind, Statement, TypeInner};
use narrows::gpu::shaders::{Lanes, SHADERS, Shader, Variant, constants, params_layout};

fn variants(shader: &Shader) -> Vec<Variant> {
    let mut variants = Vec::new();
    for lanes in if shader.has_lanes() { &Lanes::ALL[..] } else { &Lanes::ALL[..1] } {
        for workgroup in [8, 32] {
            for integer_floats in [false, true] {
                variants.push(Variant { workgroup, lanes: *lanes, integer_floats });
            }
        }
    }
    variants
}

fn modules() -> Vec<(&'static Shader, Variant, Module)> {
    let mut modules = Vec::new();
    for shader in SHADERS {
        for variant in variants(shader) {
            let source = shader.source(variant);
            let module = naga::front::wgsl::parse_str(&source)
                .unwrap_or_else(|error| panic!("{} {variant:?}: {}", shader.name, error.emit_to_string(&source)));
            modules.push((shader, variant, module));
        }
    }
    modules
}

#[test]
fn every_variant_is_valid() {
    let capabilities = Capabilities::SUBGROUP;
    for (shader, variant, module) in modules() {
        Validator::new(ValidationFlags::all(), capabilities)
            .validate(&module)
            .unwrap_or_else(|error| panic!("{} {variant:?}: {error:?}", shader.name));
        let entries: Vec<_> = module.entry_points.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(entries.iter().collect::<BTreeSet<_>>(), shader.entries.iter().collect(), "{}", shader.name);
        if !shader.has_lanes() || variant.lanes == Lanes::Memory {
            // Runs without subgroups.
            Validator::new(ValidationFlags::all(), Capabilities::empty()).validate(&module).unwrap();
        }
    }
}

fn layouts(module: &Module) -> Layouter {
    let mut layouter = Layouter::default();
    layouter.update(module.to_ctx()).unwrap();
    layouter
}

#[test]
fn the_uniform_has_the_same_layout_on_both_sides() {
    let [(fields, size), (layer_fields, layer_size), (byte_fields, byte_size)] = params_layout();
    let mut seen = 0;
    for (shader, _, module) in modules() {
        for (_, variable) in module.global_variables.iter().filter(|(_, v)| v.space == AddressSpace::Uniform) {
            let expected = match module.types[variable.ty].name.as_deref() {
                Some("Params") => (&fields, size),
                Some("LayerParams") => (&layer_fields, layer_size),
                Some("ByteParams") => (&byte_fields, byte_size),
                _ => continue,
            };
            let TypeInner::Struct { members, span } = &module.types[variable.ty].inner else { panic!("no struct") };
            let there: Vec<_> = members.iter().map(|m| (m.name.clone().unwrap(), m.offset)).collect();
            let here: Vec<_> = expected.0.iter().map(|&(name, offset)| (name.to_owned(), offset)).collect();
            assert_eq!(there, here, "{}", shader.name);
            assert_eq!(*span, expected.1, "{}", shader.name);
            seen += 1;
        }
    }
    assert!(seen > 20);
}

fn values(module: &Module, handle: Handle<Expression>) -> Vec<u32> {
    match &module.global_expressions[handle] {
        Expression::Literal(Literal::U32(value)) => vec![*value],
        Expression::Literal(Literal::I32(value)) => vec![*value as u32],
        Expression::Compose { components, .. } => components.iter().flat_map(|&c| values(module, c)).collect(),
        Expression::Constant(constant) => values(module, module.constants[*constant].init),
        other => panic!("{other:?}"),
    }
}

#[test]
fn constants_are_the_same_on_both_sides() {
    let expected = constants();
    let mut seen = BTreeSet::new();
    for (shader, _, module) in modules() {
        for (_, constant) in module.constants.iter() {
            let Some(name) = constant.name.as_deref() else { continue };
            if let Some((name, expected)) = expected.iter().find(|(known, _)| *known == name) {
                assert_eq!(values(&module, constant.init), *expected, "{name} in {}", shader.name);
                seen.insert(*name);
            }
        }
    }
    let all: BTreeSet<_> = expected.iter().map(|(name, _)| *name).collect();
    assert_eq!(seen, all, "every shared constant is in some shader");
}

/// The functions that the portable kernels export.
fn portable_kernels() -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/kernels/portable/mod.rs");
    let text = fs::read_to_string(path).unwrap();
    let table = text.lines().filter(|line| line.starts_with("//! | [`"));
    let cells = table.map(|line| line.split('|').nth(1).unwrap().to_owned());
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[test]
fn kernels_have_one_name_on_both_sides() {
    let kernels = portable_kernels();
    assert!(kernels.len() >= 12, "{kernels:?}");
    let entries: Vec<_> = SHADERS.iter().flat_map(|shader| shader.entries).copied().collect();
    // Fixed-length coding stays on the CPU.
    let on_cpu = ["pack", "unpack"];
    for kernel in &kernels {
        let found = entries.iter().any(|entry| *entry == kernel || entry.strip_suffix("_rows") == Some(kernel));
        assert_eq!(found, !on_cpu.contains(&kernel.as_str()), "{kernel}");
    }
    // And each file of shaders/ is in use: as a shader, or as a part of one.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders");
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let used = SHADERS.iter().any(|shader| variants(shader).iter().any(|&v| shader.source(v).contains(&text)));
        assert!(used, "{} is in no shader", path.display());
    }
}

/// Files that may compute with floats: one multiplication by a power of two each way.
const FLOAT_EDGES: [&str; 1] = ["float_edge.wgsl"];
/// Layers of synthesis networks, which no byte of a stream depends on.
const FLOAT_LAYERS: [&str; 2] = ["convolve_float", "normalise"];

#[test]
fn floats_stay_at_the_edges() {
    for (shader, variant, module) in modules() {
        if FLOAT_LAYERS.contains(&shader.name) || (shader.has_edge() && !variant.integer_floats) {
            continue;
        }
        for (_, ty) in module.types.iter() {
            let float = match ty.inner {
                TypeInner::Scalar(scalar) | TypeInner::Vector { scalar, .. } | TypeInner::Matrix { scalar, .. } => {
                    scalar.kind == ScalarKind::Float
                }
                _ => false,
            };
            assert!(!float, "{} {variant:?} has floats; only {FLOAT_EDGES:?} may", shader.name);
        }
    }
}

fn bounded(shader: &str, block: &naga::Block) {
    for statement in block.iter() {
        match statement {
            Statement::Loop { body, continuing, break_if } => {
                let breaks = body.iter().any(|statement| match statement {
                    Statement::If { accept, reject, .. } => {
                        [accept, reject].iter().any(|block| block.iter().any(|s| matches!(s, Statement::Break)))
                    }
                    _ => false,
                });
                assert!(breaks || break_if.is_some(), "a loop of {shader} has no condition to end on");
                bounded(shader, body);
                bounded(shader, continuing);
            }
            Statement::Block(block) => bounded(shader, block),
            Statement::If { accept, reject, .. } => [accept, reject].iter().for_each(|block| bounded(shader, block)),
            Statement::Switch { cases, .. } => cases.iter().for_each(|case| bounded(shader, &case.body)),
            _ => {}
        }
    }
}

#[test]
fn every_loop_has_a_bound() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("shaders");
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        for (i, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
            let code = line.split("//").next().unwrap();
            let word = |word: &str| code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|w| w == word);
            let place = format!("{}:{}", path.display(), i + 1);
            assert!(!word("loop") && !word("while"), "{place}: write a `for` whose condition bounds it");
            assert!(!word("for") || code.matches(';').count() == 2, "{place}: a `for` has its bound on its line");
        }
    }
    for (shader, _, module) in modules() {
        let functions = module.functions.iter().map(|(_, function)| function);
        for function in functions.chain(module.entry_points.iter().map(|entry| &entry.function)) {
            bounded(shader.name, &function.body);
        }
    }
}

#[test]
fn workgroups_fit_every_device() {
    for (shader, variant, module) in modules() {
        let layouts = layouts(&module);
        let memory: u32 = module
            .global_variables
            .iter()
            .filter(|(_, variable)| variable.space == AddressSpace::WorkGroup)
            .map(|(_, variable)| {
                let TypeLayout { size, .. } = layouts[variable.ty];
                size.next_multiple_of(16)
            })
            .sum();
        assert!(memory <= 16_384, "{} {variant:?} takes {memory} bytes of workgroup memory", shader.name);
        for entry in &module.entry_points {
            let invocations: u32 = entry.workgroup_size.iter().product();
            assert!(invocations <= 256, "{}: {invocations} invocations", entry.name);
            let storage =
                module.global_variables.iter().filter(|(_, v)| matches!(v.space, AddressSpace::Storage { .. }));
            let bindings: BTreeSet<_> = storage
                .map(|(_, v)| match &v.binding {
                    Some(binding) => (binding.group, binding.binding),
                    None => panic!("a buffer of {} without a binding", shader.name),
                })
                .collect();
            assert!(bindings.len() <= 8, "{}: {bindings:?}", shader.name);
        }
    }
}
