// Numbers and times for people, as the CLI writes them.

const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']

export function bytes(n: number): string {
  let i = 0
  while (n >= 1024 && i < units.length - 1) {
    n /= 1024
    i++
  }
  return `${short(n)} ${units[i]}`
}

const thousands = ['', 'k', 'M', 'G', 'T']

export function count(n: number): string {
  if (n < 10_000) return short(n)
  let i = 0
  while (n >= 1000 && i < thousands.length - 1) {
    n /= 1000
    i++
  }
  return `${short(n)}${thousands[i]}`
}

function short(n: number): string {
  if (Number.isInteger(n)) return String(n)
  return n >= 100 ? n.toFixed(0) : n >= 10 ? n.toFixed(1) : n.toFixed(2)
}

export function percent(share: number): string {
  const p = share * 100
  return p === 0 ? '0 %' : p < 0.1 ? '<0.1 %' : `${p < 10 ? p.toFixed(1) : p.toFixed(0)} %`
}

/** A time that something takes: 250 µs, 7.25 ms, 1.5 s. */
export function duration(s: number): string {
  if (s === 0) return '0'
  if (s < 1e-3) return `${short(s * 1e6)} µs`
  if (s < 1) return `${short(s * 1e3)} ms`
  return s < 60 ? `${short(s)} s` : age(s)
}

/** A time that has passed, in its two largest units: 5s, 3m 20s, 2d 4h. */
export function age(s: number): string {
  const parts: [number, string][] = [[86400, 'd'], [3600, 'h'], [60, 'm'], [1, 's']]
  const at = Math.max(0, parts.findIndex(([size]) => s >= size))
  let rest = Math.max(0, Math.floor(s))
  return parts.slice(s < 1 ? 3 : at, (s < 1 ? 3 : at) + 2).map(([size, name]) => {
    const n = Math.floor(rest / size)
    rest -= n * size
    return [n, name] as const
  }).filter(([n], i) => n > 0 || i === 0).map(([n, name]) => `${n}${name}`).join(' ')
}

const two = (n: number) => String(n).padStart(2, '0')

export function clock(d: Date): string {
  return `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}`
}

/** With the date where it is not today's. */
export function when(iso: string | undefined): string {
  if (!iso) return '-'
  const d = new Date(iso)
  const date = d.toDateString() === new Date().toDateString() ? '' : `${two(d.getMonth() + 1)}-${two(d.getDate())} `
  return date + clock(d)
}

/** All of an instant, in local time to the millisecond. */
export function instant(iso: string | undefined): string {
  if (!iso) return '-'
  const d = new Date(iso)
  return `${d.getFullYear()}-${two(d.getMonth() + 1)}-${two(d.getDate())} ${clock(d)}.${String(d.getMilliseconds()).padStart(3, '0')}`
}

/** DIRECTION_EGRESS: egress. */
export const enumName = (value: string | number | undefined, prefix: string) =>
  String(value ?? '').replace(`${prefix}_`, '').toLowerCase().replace('unspecified', '')
