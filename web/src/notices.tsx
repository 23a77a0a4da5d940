// What a reply says about itself, what went wrong, and what to do where there is nothing.
import type { ComponentChildren } from 'preact'
import { type ApiError, call, num, type Told } from './api'
import { useAnswer } from './ask'
import { bytes, count, when } from './format'
import { spans, useRange } from './range'
import { change, follow, linkTo } from './url'

interface ToldProps {
  told: Told | undefined
  /** What was matched: flows, groups, ... and how many of them are shown. */
  of?: string
  shown?: number
  /** Further pages show the rest. */
  paged?: boolean
}

/** Losses, missing nodes and what was left out: on every page. */
export function Coverage({ told, of = 'rows', shown = 0, paged = false }: ToldProps) {
  const range = useRange()
  if (!told) return null
  const { lost } = told
  const parts: ComponentChildren[] = []
  const missing = told.missingNodes ?? []
  if (missing.length > 0) {
    parts.push(<>Did not report: <a href={linkTo('nodes')} onClick={follow}>{missing.slice(0, 3).join(', ')}
      {missing.length > 3 ? ` and ${missing.length - 3} more nodes` : ''}</a>.</>)
  }
  const losses = [
    num(lost?.packets) > 0 && `${count(num(lost?.packets))} packets (${bytes(num(lost?.bytes))})`,
    num(lost?.calls) > 0 && `${count(num(lost?.calls))} system calls`,
    num(lost?.events) > 0 && `${count(num(lost?.events))} events`,
    num(lost?.evictedRecords) > 0 && `${count(num(lost?.evictedRecords))} records that the store had no room for`,
  ].filter(Boolean)
  if (losses.length > 0) parts.push(<>Not counted in this range: {losses.join(', ')}.</>)
  if (told.truncated && !paged) parts.push(<>Only the {count(shown)} largest of {count(num(told.matched))} {of} are shown.</>)
  const short = told.oldest && new Date(told.oldest).getTime() > range.since.getTime() + 1000
  return (
    <>
      {parts.length > 0 && (
        <div class="notice warning" role="status">
          <span aria-hidden="true">▲</span>
          <ul>{parts.map((part, i) => <li key={i}>{part}</li>)}</ul>
        </div>
      )}
      {short && <p class="muted">The store begins at {when(told.oldest)}, within this range: it knows nothing of before.</p>}
    </>
  )
}

export function Failure({ error }: { error: ApiError | undefined }) {
  if (!error) return null
  return <div class="notice bad" role="alert"><span aria-hidden="true">✕</span> <p>{error.message}</p></div>
}

interface EmptyProps {
  /** What there is none of. */
  what: string
  filtered?: boolean
}

/** Says why there may be nothing, and what to do. */
export function Empty({ what, filtered = false }: EmptyProps) {
  const range = useRange()
  const status = useAnswer('status', range.until.getTime(), (signal) => call('GetStatus', {}, signal))
  if (!status.data) return null
  const nodes = status.data.nodes ?? []
  const next = spans[spans.indexOf(range.span) + 1]
  return (
    <section class="empty">
      <h2>No {what} here</h2>
      {nodes.length === 0
        ? (
          <>
            <p>No node has reported to this collector yet.</p>
            <ul>
              <li>On one host: is the collector running with <code>ebpf_network</code>? <code>sudo orb8 doctor</code> says what the host lacks.</li>
              <li>On Kubernetes: do agents run, and reach this gateway? <code>kubectl -n orb8-system get pods</code>, <code>kubectl -n orb8-system logs ds/orb8-agent</code>.</li>
            </ul>
          </>
        )
        : (
          <>
            <p>{nodes.length === 1 ? 'One node reports' : `${nodes.length} nodes report`}, but nothing {filtered ? 'of this time matches the filters' : 'is known of this time'}.</p>
            <p class="actions">
              {filtered && <a class="button" href={linkTo(location.pathname.split('/').pop() ?? '')} onClick={follow}>Remove the filters</a>}
              {next && <a class="button" href={change({ t: next })} onClick={follow}>Look at the last {next}</a>}
              <a href={linkTo('nodes')} onClick={follow}>What the nodes say</a>
            </p>
          </>
        )}
    </section>
  )
}
