// Numbers and times as people read them. Clock times are UTC, as in ipc-cli and in the logs.

export const clock = (seconds, digits = 0) => {
  const text = new Date(seconds * 1000).toISOString();
  return text.slice(11, digits ? 20 + digits : 19) + "Z";
};

export const moment = (seconds) => new Date(seconds * 1000).toISOString().slice(0, 19).replace("T", " ") + "Z";

/** 0.0004 → "0.4 ms", 12 → "12.0 s", 600 → "10 min" */
export function span(seconds) {
  const size = Math.abs(seconds);
  if (size < 0.01) return `${(seconds * 1000).toFixed(1)} ms`;
  if (size < 1) return `${(seconds * 1000).toFixed(0)} ms`;
  if (size < 100) return `${seconds.toFixed(1)} s`;
  if (size < 5400) return `${(seconds / 60).toFixed(0)} min`;
  if (size < 129600) return `${(seconds / 3600).toFixed(0)} h`;
  return `${(seconds / 86400).toFixed(0)} d`;
}

export const count = (number) => Number(number).toLocaleString("en-US");

export const rate = (number) => (number < 100 ? Number(number).toFixed(1) : count(Math.round(number)));

export const many = (number, one, more = `${one}s`) => `${count(number)} ${number === 1 ? one : more}`;
