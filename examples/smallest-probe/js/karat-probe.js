// What a probe in JavaScript needs beside the contract: cases that always end, lists, watches, readable errors.
//
// One file, so that a project can simply hold a copy. It imports only interfaces that every probe has. Files, sockets, random
// numbers and the clock of the operating system do not exist inside a probe.

import * as cases from "karat:probe/cases@0.1.0-dev.1";
import * as clock from "karat:probe/clock@0.1.0-dev.1";
import * as log from "karat:probe/log@0.1.0-dev.1";
import * as wait from "karat:probe/wait@0.1.0-dev.1";

/** Reasons that a probe may give for `unknown`. The engine adds others that only it may give. */
export const REASONS = new Set([
  "no_accelerator", "unknown_accelerator", "solution_absent", "insufficient_capacity", "permission_denied",
  "image_unavailable", "proxy_unreachable", "auth_required", "metric_delayed", "competing_workload",
  "feature_gate_off", "version_skew", "deadline", "cleanup_incomplete",
]);

/** Something waited for did not happen in time. */
export class Deadline extends Error {}

/** An answer has not the form that its API documents. */
export class Unexpected extends Error {}

/** The contract's error (`{tag, val}`) inside of what was thrown; nothing when it is another kind of error. */
export function contractError(error) {
  const inner = error?.payload ?? error;
  return typeof inner?.tag === "string" ? inner : undefined;
}

/** An error in one line, whoever threw it. */
export function textOf(error) {
  const inner = contractError(error);
  if (inner === undefined) {
    return error instanceof Error ? `${error.name}: ${error.message}` : String(error);
  }
  if (inner.tag === "answered") {
    return `the server answered ${inner.val.code} ${inner.val.reason}: ${inner.val.message}`;
  }
  return inner.val === undefined ? inner.tag : `${inner.tag}: ${inner.val}`;
}

function code(error) {
  const inner = contractError(error);
  return inner?.tag === "answered" ? inner.val.code : undefined;
}

/** The server says that the object, or the resource, is not there. */
export function isNotFound(error) {
  return code(error) === 404;
}

/**
 * Whether the error is a statement of the platform about what was asked, so that it may prove a fail. A server in trouble
 * (5xx, 429), missing rights (401, 403), other writers (409) and policies of the cluster are none.
 */
export function isAboutPlatform(error) {
  if (error instanceof Unexpected) {
    return true;
  }
  const status = code(error);
  return status >= 400 && status < 500 && ![401, 403, 408, 409, 410, 429].includes(status) &&
    !contractError(error).val.message.startsWith("admission webhook ");
}

/** Whether there is no use in asking on: a budget is used up, or the run is ending. */
export function endsTheProbe(error) {
  return ["budget", "stopping"].includes(contractError(error)?.tag);
}

/** An open case. Use `inCase`, which ends it whatever happens. */
export class Case {
  #handle;

  constructor(id, subject = "") {
    this.#handle = cases.open(id, subject);
  }

  /** Shows a value. At least one value of a pass must occur in an answer of this case. */
  observe(name, value) {
    this.#handle?.observe(name, String(value));
  }

  /** The claim held. */
  passed() {
    this.#conclude({ tag: "pass" });
  }

  /** The claim was contradicted. */
  failed(text) {
    // The contract's `fail` carries no text: the explanation is shown as a value instead.
    this.observe("contradiction", text);
    this.#conclude({ tag: "fail" });
  }

  /** Could not tell; the text says what would settle it. */
  unknown(reason, text) {
    if (!REASONS.has(reason)) {
      throw new TypeError(`no such reason: ${reason}`);
    }
    this.#conclude({ tag: "unknown", val: `${reason}: ${text}` });
  }

  /** The condition of the requirement does not arise. */
  notApplicable(text) {
    this.#conclude({ tag: "not-applicable", val: text });
  }

  /** Whether it still waits for a conclusion. */
  get isOpen() {
    return this.#handle !== undefined;
  }

  #conclude(outcome) {
    const handle = this.#handle;
    if (handle === undefined) {
      throw new TypeError("the case was concluded before");
    }
    this.#handle = undefined;
    cases.Case.conclude(handle, outcome);
  }
}

/**
 * Opens a case, runs `body(case)` and makes sure that the case ends. Without a conclusion it ends as `unknown`, never as a
 * pass. An error that the case can be judged by ends the case and not the probe.
 */
export function inCase(id, subject, body) {
  const open = new Case(id, subject);
  try {
    body(open);
    if (open.isOpen) {
      open.unknown("deadline", "the probe left the case without a conclusion");
    }
  } catch (error) {
    if (!open.isOpen) {
      throw error;
    }
    const text = textOf(error);
    const inner = contractError(error);
    if (isAboutPlatform(error)) {
      open.failed(text);
      return;
    }
    if (inner?.tag === "refused" || [401, 403].includes(code(error)) || text.includes("admission webhook ")) {
      open.unknown("permission_denied", text);
    } else {
      open.unknown(code(error) === 409 ? "competing_workload" : "deadline", text);
    }
    // A mistake of the probe itself, and an end of the run, are no business of one case.
    if ((inner === undefined && !(error instanceof Deadline)) || endsTheProbe(error)) {
      throw error;
    }
  }
}

/** All objects of a `Query`, page by page and collected. Begins again at most three times when the server forgot its place. */
export function objects(query) {
  for (let left = 3; ; left--) {
    try {
      const found = [];
      const cursor = query.openList();
      for (let page = cursor.next(); page != null; page = cursor.next()) {
        found.push(...page.map((text) => JSON.parse(text)));
      }
      return found;
    } catch (error) {
      if (contractError(error)?.tag !== "expired" || left === 0) {
        throw error;
      }
    }
  }
}

/**
 * The events of a `Watch` as `{kind, object, text}`: `added`, `modified`, `deleted`, `synced`, `gap`. Throws `Deadline` with
 * `what` when the time is up; leave the loop when you have seen enough.
 */
export function* events(watch, seconds, what) {
  const end = clock.elapsed() + seconds * 1000;
  for (;;) {
    const event = watch.next();
    if (event != null) {
      const hasObject = ["added", "modified", "deleted"].includes(event.tag);
      yield { kind: event.tag, text: event.val, object: hasObject ? JSON.parse(event.val) : undefined };
      continue;
    }
    const left = end - clock.elapsed();
    if (left <= 0) {
      throw new Deadline(`${what} did not happen within ${seconds} s`);
    }
    wait.any([watch.ready()], left);
  }
}

/** Runs the probe. An error that nobody caught is logged with its place before it ends the component. */
export function run(check) {
  try {
    check();
  } catch (error) {
    const text = textOf(error);
    log.write("error", error?.stack ? `${text}\n${error.stack}` : text);
    throw text;
  }
}
