//! Restore is plan, then apply.

use stackkit_backup::StackRestorePlan;
use stackkit_core::ErrorKind;
use stackkit_core::backup::{RestoreOptions, TargetState};

use crate::support::shelf::{Fault, Shelf};
use crate::support::{FRAME, in_memory, local, stack_of, text};

pub(crate) async fn a_wiped_stack_comes_back() {
    let repository = in_memory().await;
    let (a, b) = (Shelf::new("a").with("x", text(3 * FRAME, 1)), Shelf::new("b").with("y", text(7, 2)).with("z", ""));
    let stack = stack_of([a.clone(), b.clone()]);
    let before = (a.items(), b.items());
    let backup = repository.backup(&stack).run().await.unwrap();
    a.wipe();
    let plan = repository.plan_restore(backup.id(), &stack, &RestoreOptions::new()).await.unwrap();
    assert!(plan.is_destructive(), "b is still there");
    let shown = plan.to_string();
    for part in ["create item x", "overwrite item y", "data that exists is replaced"] {
        assert!(shown.contains(part), "{part:?} is missing in\n{shown}");
    }
    // A plan can be stored and applied later.
    let plan: StackRestorePlan = serde_json::from_str(&serde_json::to_string(&plan).unwrap()).unwrap();
    let report = repository.apply_restore(plan, &stack).await.unwrap();
    assert_eq!(report.services.len(), 2);
    assert_eq!((a.items(), b.items()), before);
}

pub(crate) async fn only_what_is_chosen_is_restored() {
    let repository = in_memory().await;
    let (a, b) = (Shelf::new("a").with("x", "1"), Shelf::new("b").with("y", "2"));
    let stack = stack_of([a.clone(), b.clone()]);
    let backup = repository.backup(&stack).run().await.unwrap();
    a.wipe();
    b.wipe();
    let options = RestoreOptions::new().only(["b"]);
    let plan = repository.plan_restore(backup.id(), &stack, &options).await.unwrap();
    assert_eq!(plan.skipped, ["a: not asked for"]);
    repository.apply_restore(plan, &stack).await.unwrap();
    assert!(a.items().is_empty() && b.items().len() == 1);

    let smaller = stack_of([a.clone()]);
    let plan = repository.plan_restore(backup.id(), &smaller, &RestoreOptions::new()).await.unwrap();
    assert_eq!(plan.skipped, ["b: the stack has no such service"]);
    for (options, stack) in [(&options, &smaller), (&RestoreOptions::new().only(["nothing"]), &stack)] {
        let error = repository.plan_restore(backup.id(), stack, options).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
    let other = stack_of([Shelf::new("other")]);
    let error = repository.plan_restore(backup.id(), &other, &RestoreOptions::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let unknown = "20261121T061530Z-00000000".parse().unwrap();
    let error = repository.plan_restore(&unknown, &stack, &RestoreOptions::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

pub(crate) async fn a_plan_whose_target_changed_is_refused() {
    let repository = in_memory().await;
    let shelf = Shelf::new("shelf").with("x", "1");
    let stack = stack_of([shelf.clone()]);
    let backup = repository.backup(&stack).run().await.unwrap();
    let plan = repository.plan_restore(backup.id(), &stack, &RestoreOptions::new()).await.unwrap();
    let shelf = shelf.with("x", "changed since");
    let error = repository.apply_restore(plan, &stack).await.unwrap_err();
    assert_eq!((error.kind(), error.target()), (ErrorKind::Incompatible, Some(TargetState::Old)));
    assert_eq!(shelf.items()["x"], "changed since");

    let mut foreign = repository.plan_restore(backup.id(), &stack, &RestoreOptions::new()).await.unwrap();
    foreign.manifest_blake3 = "0".repeat(64);
    let error = repository.apply_restore(foreign, &stack).await.unwrap_err();
    assert_eq!((error.kind(), error.target()), (ErrorKind::Incompatible, Some(TargetState::Old)));
}

/// What is on the disk may change at any moment: before the plan is applied, and after its bytes were checked.
pub(crate) async fn a_backup_that_is_gone_or_replaced_since_the_plan_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let repository = local(directory.path()).await;
    let (a, b) = (Shelf::new("a").with("x", text(9, 1)), Shelf::new("b").with("y", text(9, 2)));
    let stack = stack_of([a.clone(), b.clone()]);
    let backup = repository.backup(&stack).run().await.unwrap();
    let folder = directory.path().join("backups/shop").join(backup.id().to_string());
    let plan = repository.plan_restore(backup.id(), &stack, &RestoreOptions::new()).await.unwrap();
    let b = b.with("y", text(9, 3));
    let before = b.items();
    let later = repository.backup(&stack).run().await.unwrap();
    let object = folder.join("b/y.zst");
    let good = std::fs::read(&object).unwrap();
    let flipped = good.iter().enumerate().map(|(at, byte)| byte ^ u8::from(at == good.len() / 3)).collect();
    // Whole frames with other content of the same size: no frame's own checksum can tell.
    let replaced = std::fs::read(folder.with_file_name(later.id().to_string()).join("b/y.zst")).unwrap();
    assert_eq!(replaced.len(), good.len());
    for bytes in [flipped, replaced] {
        let fresh = repository.plan_restore(backup.id(), &stack, &RestoreOptions::new()).await.unwrap();
        // While a is restored, after both were checked, the bytes of b change.
        let changing = object.clone();
        a.on_restore(move || std::fs::write(changing, bytes).unwrap());
        let error = repository.apply_restore(fresh, &stack).await.unwrap_err();
        assert_eq!((error.kind(), error.target()), (ErrorKind::Integrity, Some(TargetState::Old)), "{error}");
        assert!(error.to_string().contains("restored_before=a"), "{error}");
        assert_eq!(b.items(), before);
        std::fs::write(&object, &good).unwrap();
    }

    std::fs::remove_dir_all(folder).unwrap();
    let error = repository.apply_restore(plan, &stack).await.unwrap_err();
    assert_eq!((error.kind(), error.target()), (ErrorKind::NotFound, Some(TargetState::Old)));
}

pub(crate) async fn a_plan_that_misses_something_is_refused_before_any_service() {
    let repository = in_memory().await;
    let (a, b) = (Shelf::new("a").with("x", "1"), Shelf::new("b").with("y", "2"));
    let stack = stack_of([a.clone(), b]);
    let backup = repository.backup(&stack).run().await.unwrap();
    let mut plan = repository.plan_restore(backup.id(), &stack, &RestoreOptions::new()).await.unwrap();
    plan.services[1].missing.push("a tool".to_owned());
    let error = repository.apply_restore(plan, &stack).await.unwrap_err();
    assert_eq!((error.kind(), error.target()), (ErrorKind::Incompatible, Some(TargetState::Old)));
    assert_eq!(a.content.restores.load(std::sync::atomic::Ordering::SeqCst), 0);
}

pub(crate) async fn what_a_provider_loses_is_found_by_the_census() {
    let repository = in_memory().await;
    let shelf = Shelf::new("shelf").with("x", "1").with("y", "22").with_fault(Fault::LosesAnItem);
    let stack = stack_of([shelf]);
    let backup = repository.backup(&stack).run().await.unwrap();
    let plan = repository.plan_restore(backup.id(), &stack, &RestoreOptions::new()).await.unwrap();
    let error = repository.apply_restore(plan, &stack).await.unwrap_err();
    assert_eq!((error.kind(), error.target()), (ErrorKind::Integrity, Some(TargetState::New)));
    assert!(error.to_string().contains("bytes: expected 3, found 2, and 1 more"), "{error}");
}
