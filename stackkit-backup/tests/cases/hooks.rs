//! What an application does around a backup and a restore.

use std::future::pending;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use stackkit_backup::{BackupId, Hook, HookContext, HookOutcome, HookPoint, ProgressEvent, Repository};
use stackkit_core::backup::{RestoreOptions, TargetState};
use stackkit_core::{Error, ErrorKind, Secret, ServiceId};

use crate::support::shelf::{Fault, SHORT_DEADLINE, Shelf};
use crate::support::{FRAME, backup_files, in_memory, local, stack_of, text, until};

/// What happened, in order.
#[derive(Debug, Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn say(&self, what: impl Into<String>) {
        self.0.lock().unwrap().push(what.into());
    }

    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// A hook that tells where it runs.
    fn hook(&self, point: HookPoint) -> Hook {
        let log = self.clone();
        Hook::at(point, move |about| {
            log.say(told(&about));
            async { Ok(()) }
        })
    }
}

fn told(about: &HookContext) -> String {
    let service = about.service.as_ref().map_or("all", ServiceId::as_str);
    match about.outcome {
        None => format!("{} {service}", about.point),
        Some(HookOutcome::Succeeded) => format!("{} {service} ok", about.point),
        Some(HookOutcome::Failed(kind)) => format!("{} {service} {kind:?}", about.point),
        Some(_) => "another".to_owned(),
    }
}

fn failing(point: HookPoint) -> Hook {
    Hook::at(point, |_| async { Err(Error::new(ErrorKind::Unreachable, "the application does not answer")) })
}

fn shelves() -> [Shelf; 2] {
    [Shelf::new("database").with("dump", text(2 * FRAME, 1)), Shelf::new("cache").with("a", text(10, 2))]
}

/// A program that appends what it was told to a file.
fn script(directory: &Path, body: &str) -> PathBuf {
    let path = directory.join("hook.sh");
    std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

pub(crate) async fn they_run_in_order_around_pins_and_bytes() {
    let repository = in_memory().await;
    let stack = stack_of(shelves());
    let log = Log::default();
    let events = log.clone();
    let progress = move |event: &ProgressEvent| match event {
        ProgressEvent::Pinned { service } => events.say(format!("pinned {service}")),
        ProgressEvent::Stored { service, .. } => events.say(format!("stored {service}")),
        ProgressEvent::Committed => events.say("committed"),
        _ => {}
    };
    let mut run = repository.backup(&stack).only(["database"]).with_progress(Arc::new(progress));
    for point in [HookPoint::AfterDump, HookPoint::AfterPin, HookPoint::BeforeDump] {
        run = run.with_hook(log.hook(point));
        run = run.with_hook(log.hook(point).for_service("database"));
        // Not in this backup, so it has nothing to do.
        run = run.with_hook(log.hook(point).for_service("cache"));
    }
    let backup = run.run().await.unwrap();
    let expected = [
        "before_dump all",
        "before_dump database",
        "pinned database",
        "after_pin database ok",
        "after_pin all ok",
        "stored database",
        "after_dump database ok",
        "after_dump all ok",
        "committed",
    ];
    assert_eq!(log.lines(), expected);
    let about = log.clone();
    let id = *backup.id();
    let plan = repository.plan_restore(&id, &stack, &RestoreOptions::new()).await.unwrap();
    let run = repository.restore(plan, &stack).with_hook(Hook::before_restore(move |cx: HookContext| {
        about.say(format!("{} {}", cx.backup, cx.stack));
        async { Ok(()) }
    }));
    run.with_hook(log.hook(HookPoint::AfterRestore).for_service("database")).run().await.unwrap();
    assert_eq!(log.lines()[expected.len()..], [format!("{id} shop"), "after_restore database ok".to_owned()]);
}

pub(crate) async fn a_failure_before_the_dump_stores_nothing() {
    let slow = || Hook::before_dump(|_| pending()).with_deadline(SHORT_DEADLINE);
    let panics = Hook::before_dump(|_| async { panic!("the hook falls over") });
    for (hook, kind) in [
        (failing(HookPoint::BeforeDump), ErrorKind::Unreachable),
        (slow(), ErrorKind::Timeout),
        (panics, ErrorKind::Unexpected),
        (failing(HookPoint::AfterPin), ErrorKind::Unreachable),
        (failing(HookPoint::AfterDump), ErrorKind::Unreachable),
        (failing(HookPoint::AfterDump).for_service("cache"), ErrorKind::Unreachable),
        (Hook::before_dump(|_| async { Ok(()) }).for_service("queue"), ErrorKind::NotFound),
        (Hook::command(HookPoint::BeforeDump, ["no-such-program"]), ErrorKind::ToolMissing),
        (Hook::command(HookPoint::BeforeDump, [""]), ErrorKind::Config),
    ] {
        let directory = tempfile::tempdir().unwrap();
        let repository = local(directory.path()).await;
        let stack = stack_of(shelves());
        let shown = format!("{hook:?}");
        let error = repository.backup(&stack).with_hook(hook.with_name("quiesce")).run().await.unwrap_err();
        assert_eq!(error.kind(), kind, "{shown}: {error}");
        assert!(backup_files(directory.path()).is_empty(), "{shown}");
        if kind != ErrorKind::NotFound {
            assert!(error.to_string().contains("hook=quiesce"), "{error}");
        }
    }
}

pub(crate) async fn what_always_runs_does_after_every_failure_and_once() {
    let broken = || Shelf::new("database").with("dump", text(FRAME, 1)).with_fault(Fault::RunFailsAtTheEnd);
    let unpinned = || Shelf::new("database").with("dump", text(FRAME, 1)).with_fault(Fault::BeginFails);
    let good = || Shelf::new("database").with("dump", text(FRAME, 1));
    let none = Hook::before_dump(|_| async { Ok(()) });
    for (shelf, extra, of_service, of_all) in [
        (good(), none.clone(), "after_dump database ok", "after_dump all ok"),
        (broken(), none.clone(), "after_dump database ToolFailed", "after_dump all ToolFailed"),
        (unpinned(), none, "after_dump database Unreachable", "after_dump all Unreachable"),
        (good(), failing(HookPoint::BeforeDump), "after_dump database Unreachable", "after_dump all Unreachable"),
        (good(), failing(HookPoint::AfterDump), "after_dump database ok", "after_dump all Unreachable"),
    ] {
        let repository = in_memory().await;
        let stack = stack_of([shelf]);
        let log = Log::default();
        let run = repository.backup(&stack).with_hook(extra);
        let run = run.with_hook(log.hook(HookPoint::AfterDump).always());
        let run = run.with_hook(log.hook(HookPoint::AfterDump).for_service("database").always());
        let ended = run.run().await;
        assert_eq!(log.lines(), [of_service, of_all]);
        assert_eq!(ended.is_ok(), of_all.ends_with("ok"), "{ended:?}");
    }
    // One that fails after a failure does not hide it.
    let repository = in_memory().await;
    let stack = stack_of([broken()]);
    let run = repository.backup(&stack).with_hook(failing(HookPoint::AfterDump).always());
    assert_eq!(run.run().await.unwrap_err().kind(), ErrorKind::ToolFailed);
}

pub(crate) async fn a_stopped_backup_undoes_and_a_dropped_one_does_not() {
    let directory = tempfile::tempdir().unwrap();
    let repository = local(directory.path()).await;
    let hanging = Shelf::new("database").with("dump", text(3 * FRAME, 1)).with_fault(Fault::RunHangsHalfway);
    let stack = stack_of([hanging]);
    let log = Log::default();
    let always = || log.hook(HookPoint::AfterDump).always();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let run = repository.backup(&stack).with_hook(always()).stop_when(async {
        let _ = stopped.await;
    });
    let stopping = async {
        until("the dump writes", || !backup_files(directory.path()).is_empty()).await;
        stop.send(()).unwrap();
    };
    let (ended, ()) = tokio::join!(run.run(), stopping);
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Cancelled);
    assert_eq!(log.lines(), ["after_dump all Cancelled"]);
    assert!(backup_files(directory.path()).is_empty());
    {
        let mut run = Box::pin(repository.backup(&stack).with_hook(always()).run());
        tokio::select! {
            ended = &mut run => panic!("the backup ended: {ended:?}"),
            () = until("the dump writes", || !backup_files(directory.path()).is_empty()) => {}
        }
    }
    assert_eq!(log.lines().len(), 1);
    let error = repository.backup(&stack).with_hook(always()).with_deadline(SHORT_DEADLINE).run().await.unwrap_err();
    assert_eq!((error.kind(), log.lines().len()), (ErrorKind::Timeout, 2));
    assert_eq!(log.lines()[1], "after_dump all Timeout");
}

pub(crate) async fn a_partial_backup_survives_the_hook_of_one_service() {
    for point in [HookPoint::BeforeDump, HookPoint::AfterPin, HookPoint::AfterDump] {
        let repository = in_memory().await;
        let stack = stack_of(shelves());
        let run = repository.backup(&stack).partial().with_hook(failing(point).for_service("database"));
        let backup = run.run().await.unwrap();
        assert!(backup.is_partial(), "{point}");
        let [database, cache] = &backup.manifest().services[..] else { panic!("two services") };
        assert_eq!(database.error.as_ref().unwrap().kind, "unreachable");
        assert!(database.artifacts.is_empty() && cache.error.is_none());
    }
}

pub(crate) async fn a_command_is_told_what_it_is_about() {
    let directory = tempfile::tempdir().unwrap();
    let (out, repository) = (directory.path().join("out"), in_memory().await);
    let program = script(
        directory.path(),
        r#"echo "$1 $STACKKIT_HOOK $STACKKIT_STACK $STACKKIT_BACKUP_ID ${STACKKIT_SERVICE-none} ${STACKKIT_OUTCOME-none}" >> "$OUT""#,
    );
    let command = |point| {
        let hook = Hook::command(point, [program.to_str().unwrap(), "argument"]);
        hook.with_env("OUT", out.to_str().unwrap()).with_env("STACKKIT_STACK", "another")
    };
    let stack = stack_of(shelves());
    let run = repository.backup(&stack).with_hook(command(HookPoint::BeforeDump));
    let run = run.with_hook(command(HookPoint::AfterDump).for_service("cache"));
    let backup = run.run().await.unwrap();
    let id: BackupId = *backup.id();
    let told = std::fs::read_to_string(&out).unwrap();
    let expected = format!("argument before_dump shop {id} none none\nargument after_dump shop {id} cache succeeded\n");
    assert_eq!(told, expected);
}

pub(crate) async fn a_failed_command_tells_no_secret() {
    let (directory, repository) = (tempfile::tempdir().unwrap(), in_memory().await);
    let program = script(directory.path(), "echo \"token $TOKEN refused\" >&2; exit 3");
    let stack = stack_of(shelves());
    let hook = Hook::command(HookPoint::BeforeDump, [program.to_str().unwrap()]);
    let hook = hook.with_secret_env("TOKEN", &Secret::new("hunter2-geheim"));
    assert!(!format!("{hook:?}").contains("hunter2"));
    let error = repository.backup(&stack).with_hook(hook).run().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ToolFailed);
    let chain = error.chain().to_string();
    assert!(chain.contains("token *** refused") && chain.contains("exit 3"), "{chain}");
    assert!(!chain.contains("hunter2"), "{chain}");
}

pub(crate) async fn a_command_that_hangs_is_killed_with_its_children() {
    let (directory, repository) = (tempfile::tempdir().unwrap(), in_memory().await);
    let (pid, stack) = (directory.path().join("pid"), stack_of(shelves()));
    let program = script(directory.path(), "sleep 1000 & echo $! > \"$OUT\"; wait");
    let hook = Hook::command(HookPoint::BeforeDump, [program.to_str().unwrap()]).with_env("OUT", pid.to_str().unwrap());
    // Long enough that the child is there; the file says when.
    let run = repository.backup(&stack).with_hook(hook.with_deadline(Duration::from_secs(2))).run();
    let (ended, ()) = tokio::join!(run, until("the child is there", || read(&pid).ends_with('\n')));
    assert_eq!(ended.unwrap_err().kind(), ErrorKind::Timeout);
    let child = format!("/proc/{}/stat", read(&pid).trim());
    // A zombie that init has not reaped is as good as gone.
    until("the child is gone", || {
        std::fs::read_to_string(&child).is_ok_and(|stat| stat.contains(") Z ")) || read(Path::new(&child)).is_empty()
    })
    .await;
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

pub(crate) async fn a_failing_restore_hook_tells_the_state_of_the_target() {
    let directory = tempfile::tempdir().unwrap();
    let repository: Repository = local(directory.path()).await;
    let shelves = shelves();
    let stack = stack_of(shelves.clone());
    let backup = repository.backup(&stack).run().await.unwrap();
    let restore = async |hook: Hook, log: &Log| {
        let plan = repository.plan_restore(backup.id(), &stack, &RestoreOptions::new()).await.unwrap();
        let undo = log.hook(HookPoint::AfterRestore).always();
        repository.restore(plan, &stack).with_hook(hook).with_hook(undo).run().await.unwrap_err()
    };
    shelves[0].wipe();
    let log = Log::default();
    let error = restore(failing(HookPoint::BeforeRestore), &log).await;
    assert_eq!((error.kind(), error.target()), (ErrorKind::Unreachable, Some(TargetState::Old)));
    assert!(shelves[0].items().is_empty(), "no store was touched");
    let error = restore(failing(HookPoint::AfterRestore).for_service("cache"), &log).await;
    assert_eq!((error.kind(), error.target()), (ErrorKind::Unreachable, Some(TargetState::New)));
    assert!(error.to_string().contains("restored_before=database"), "{error}");
    assert_eq!(shelves[0].items().len(), 1);
    assert_eq!(log.lines(), ["after_restore all Unreachable", "after_restore all Unreachable"]);
}
