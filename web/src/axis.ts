import type { Range } from './range'

/** The buckets of a range: their beginnings, and which of them are over. */
export interface Axis {
  times: number[]
  step: number
  /** Buckets that end after this are not whole yet. */
  until: number
}

export function axisOf(range: Range, step: number): Axis {
  const times: number[] = []
  const until = range.until.getTime() / 1000
  for (let t = Math.floor(range.since.getTime() / 1000 / step) * step; t < until; t += step) times.push(t)
  return { times, step, until: range.live ? until - 5 : until }
}

/** One value a bucket: null in the one that still fills, and where nothing is known before the store begins; else 0 is nothing. */
export function along(axis: Axis, values: Map<number, number>, oldest?: string): (number | null)[] {
  const from = oldest ? Date.parse(oldest) / 1000 : 0
  return axis.times.map((t) => (t + axis.step > axis.until ? null : (values.get(t) ?? (t < from ? null : 0))))
}

/** What all charts of a page have. */
export interface ChartProps {
  axis: Axis
  range: [number, number]
}
