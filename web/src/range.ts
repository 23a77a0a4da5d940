// The time range that all pages share, in the address bar: t=15m, or since= and until=; live=0 stops the page from asking again.
import { createContext } from 'preact'
import { useContext, useEffect, useMemo, useState } from 'preact/hooks'
import type { Place } from './url'

export const spans = ['5m', '15m', '1h', '6h']
const spanSeconds: Record<string, number> = { '5m': 300, '15m': 900, '1h': 3600, '6h': 21600 }
const defaultSpan = '15m'

export interface Range {
  /** A span, or empty for a range of its own. */
  span: string
  live: boolean
  since: Date
  until: Date
}

/** As the API wants it. */
export const bounds = (r: Range) => ({ since: r.since.toISOString(), until: r.until.toISOString() })

/** What differs where the bounds do. */
export const timeOf = (r: Range) => `${r.since.getTime()} ${r.until.getTime()}`

export const lengthOf = (r: Range) => (r.until.getTime() - r.since.getTime()) / 1000

const steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200, 86400]

/** A bucket, in seconds, so that a range has at most 90; not shorter than the time between two records. */
export function stepOf(r: Range, apart: number): number {
  const least = Math.max(5, apart, lengthOf(r) / 90)
  return steps.find((s) => s >= least) ?? Math.ceil(least / 86400) * 86400
}

export const RangeContext = createContext<Range>({ span: defaultSpan, live: true, since: new Date(), until: new Date() })
export const useRange = () => useContext(RangeContext)

function custom(params: URLSearchParams): { since: Date; until: Date } | null {
  const since = new Date(params.get('since') ?? '')
  const until = new Date(params.get('until') ?? '')
  return since < until ? { since, until } : null
}

/** The range of a place; of a live one the end moves on. */
export function useRangeOf({ params }: Place): Range {
  const own = custom(params)
  const asked = params.get('t') ?? ''
  const span = own ? '' : (spans.includes(asked) ? asked : defaultSpan)
  const live = !own && params.get('live') !== '0'
  const size = spanSeconds[span] ?? 0
  const [now, setNow] = useState(() => Date.now())
  useEffect(() => {
    setNow(Date.now())
    if (!live) return
    // What a page shows changes by a part of its width; agents report every five seconds.
    const every = Math.max(5, size / 180) * 1000
    const timer = setInterval(() => { if (!document.hidden) setNow(Date.now()) }, every)
    const awake = () => { if (!document.hidden) setNow(Date.now()) }
    document.addEventListener('visibilitychange', awake)
    return () => {
      clearInterval(timer)
      document.removeEventListener('visibilitychange', awake)
    }
  }, [live, size])
  const [since, until] = own ? [own.since.getTime(), own.until.getTime()] : [now - size * 1000, now]
  return useMemo(() => ({ span, live, since: new Date(since), until: new Date(until) }), [span, live, since, until])
}
