// Loaded into a gateway before its own code. Adds attribution headers to requests to configured hosts, and hides the console windows of
// child processes on Windows. What to do stands in one environment variable; whatever is wrong with it, the gateway must start.
'use strict';

(() => {
  const VARIABLE = 'GATEWAY_MANAGER_PRELOAD';
  const DONE = Symbol.for('gateway-manager.preload');

  let settings;
  try {
    settings = JSON.parse(process.env[VARIABLE] ?? 'null');
  } catch {
    return;
  }
  if (settings === null || typeof settings !== 'object' || globalThis[DONE]) {
    return;
  }
  Object.defineProperty(globalThis, DONE, { value: true });
  for (const step of [addAttribution, hideWindows]) {
    try {
      step(settings);
    } catch {
      // Half of it is better than no gateway.
    }
  }

  /** Gives `wrapper` the name, length and property attributes of the function that it replaces. */
  function replace(owner, name, original, wrapper) {
    Object.defineProperty(wrapper, 'name', { value: original.name, configurable: true });
    Object.defineProperty(wrapper, 'length', { value: original.length, configurable: true });
    const { configurable = true, enumerable = true } = Object.getOwnPropertyDescriptor(owner, name) ?? {};
    Object.defineProperty(owner, name, { value: wrapper, writable: true, configurable, enumerable });
  }

  function addAttribution({ attribution }) {
    const rules = (Array.isArray(attribution) ? attribution : []).map(readRule).filter(Boolean);
    const original = globalThis.fetch;
    if (rules.length === 0 || typeof original !== 'function') {
      return;
    }
    replace(globalThis, 'fetch', original, function (...list) {
      let next = list;
      try {
        next = withAttribution(rules, list);
      } catch {
        // An address or headers that cannot be read: the real one says so in its own words.
      }
      return Reflect.apply(original, this, next);
    });
  }

  function readRule(rule) {
    try {
      const host = new URL(`http://${rule.host}`).hostname;
      const headers = Object.entries(rule.headers);
      // Throws for what is no header.
      new Headers(headers);
      return headers.length > 0 && { host, subdomains: rule.subdomains === true, headers };
    } catch {
      return undefined;
    }
  }

  function withAttribution(rules, list) {
    const [input, init] = list;
    const isRequest = typeof input === 'object' && input !== null && !(input instanceof URL) && typeof input.url === 'string';
    if (!isRequest && typeof input !== 'string' && !(input instanceof URL)) {
      return list;
    }
    const { protocol, hostname } = new URL(isRequest ? input.url : input);
    const host = hostname.replace(/\.$/, '');
    const wanted = rules.filter((rule) => host === rule.host || (rule.subdomains && host.endsWith(`.${rule.host}`)));
    if (wanted.length === 0 || !/^https?:$/.test(protocol)) {
      return list;
    }
    // Headers beside a request replace the request's own.
    const given = init?.headers === undefined && isRequest ? input.headers : init?.headers;
    if (given === null || (typeof given?.[Symbol.iterator] === 'function' && given[Symbol.iterator]() === given)) {
      // An error, or something that can be read only once: both are for the real one.
      return list;
    }
    const headers = new Headers(given);
    for (const { headers: own } of wanted) {
      for (const [name, value] of own) {
        if (!headers.has(name)) {
          headers.set(name, value);
        }
      }
    }
    return [input, overlaid(init, { headers }), ...list.slice(2)];
  }

  /** `options` with some of them replaced, without touching the caller's object or losing what it inherits. */
  function overlaid(options, changes) {
    if (options === undefined || options === null) {
      return changes;
    }
    const prototype = Object.getPrototypeOf(options);
    if (prototype === Object.prototype || prototype === null) {
      return { ...options, ...changes };
    }
    return new Proxy(
      {},
      {
        get: (_, key) => (Object.hasOwn(changes, key) ? changes[key] : options[key]),
        has: (_, key) => Object.hasOwn(changes, key) || key in options,
      },
    );
  }

  function hideWindows({ hideWindows }) {
    if (hideWindows !== true || process.platform !== 'win32') {
      return;
    }
    const childProcess = require('node:child_process');
    const { promisify } = require('node:util');
    const functions = { spawn: true, spawnSync: true, execFile: true, execFileSync: true, fork: true, exec: false, execSync: false };
    for (const [name, takesList] of Object.entries(functions)) {
      const original = childProcess[name];
      if (typeof original !== 'function') {
        continue;
      }
      const hidden = (target) =>
        function (...list) {
          let next = list;
          try {
            next = withHiddenWindow(list, takesList);
          } catch {
            // As with fetch.
          }
          return Reflect.apply(target, this, next);
        };
      const wrapper = hidden(original);
      const promising = original[promisify.custom];
      if (typeof promising === 'function') {
        Object.defineProperty(wrapper, promisify.custom, { value: hidden(promising), configurable: true });
      }
      replace(childProcess, name, original, wrapper);
    }
    // Modules that say `import { spawn }` would keep the originals.
    require('node:module').syncBuiltinESMExports();
  }

  /** The arguments of a call, with the window hidden unless the caller has said whether it is to be. */
  function withHiddenWindow(list, takesList) {
    const next = [...list];
    const at = takesList && (Array.isArray(list[1]) || (list.length > 2 && (list[1] ?? null) === null)) ? 2 : 1;
    const given = list[at] ?? null;
    if (given === null) {
      next[at] = { windowsHide: true };
    } else if (typeof given === 'function') {
      next.splice(at, 0, { windowsHide: true });
    } else if (typeof given === 'object' && !Array.isArray(given) && given.windowsHide === undefined) {
      next[at] = { ...given, windowsHide: true };
    }
    return next;
  }
})();
