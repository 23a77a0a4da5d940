import { useEffect, useState } from 'preact/hooks'
import { call, num, seconds } from '../api'
import { useAnswer } from '../ask'
import { fullName, nameOf, subjectOf, withPort } from '../endpoint'
import { selectionOf, termsOf } from '../filter'
import { FilterBar } from '../filterbar'
import { bytes, count, duration, enumName, instant, when } from '../format'
import type { EndpointJson, FlowJson } from '../gen/orb8/v1/orb8_pb'
import { Coverage, Empty, Failure } from '../notices'
import { bounds, useRange } from '../range'
import { type Column, Table } from '../table'
import { change, follow, go, linkTo, usePlace } from '../url'

const pageSize = 200

export function FlowsPage() {
  const { params } = usePlace()
  const range = useRange()
  const terms = termsOf(params)
  const selection = selectionOf(terms)
  const key = JSON.stringify([range.span, selection, range.span ? '' : bounds(range)])
  const [pages, setPages] = useState<string[]>([''])
  // Of a live range, pages after the first are those of when the first was left: rows would move between them.
  const [frozen, setFrozen] = useState<ReturnType<typeof bounds> | null>(null)
  useEffect(() => {
    setPages([''])
    setFrozen(null)
  }, [key])
  const token = pages.at(-1) ?? ''
  const asked = frozen ?? bounds(range)
  const answer = useAnswer(`${key} ${token}`, `${asked.since} ${asked.until}`, (signal) => call('QueryFlows', {
    ...asked, allow: selection.allow, deny: selection.deny, limit: pageSize, ...(token && { pageToken: token }),
  }, signal))
  const flows = answer.data?.flows ?? []
  const matched = num(answer.data?.matched)
  const first = (pages.length - 1) * pageSize
  const next = answer.data?.nextPageToken
  const sort = params.get('sort') ?? ''
  return (
    <>
      <FilterBar terms={terms} clears={['sort']} />
      <Failure error={answer.error} />
      <Coverage told={answer.data} of="flows" shown={flows.length} paged />
      {answer.data && flows.length === 0 && <Empty what="flows" filtered={terms.length > 0} />}
      {flows.length > 0 && (
        <>
          <div class="pager">
            <span role="status">
              {count(first + 1)}–{count(first + flows.length)} of {matched} flows, newest first
              {sort && matched > flows.length ? '; sorted within these' : ''}
              {frozen && range.live ? `; as of ${when(frozen.until)}` : ''}
            </span>
            <button type="button" disabled={pages.length === 1} onClick={() => {
              if (pages.length === 2) setFrozen(null)
              setPages(pages.slice(0, -1))
            }}>← Newer</button>
            <button type="button" disabled={!next} onClick={() => {
              setFrozen(asked)
              setPages([...pages, next ?? ''])
            }}>Older →</button>
          </div>
          <Table
            label="Flows"
            columns={columns}
            rows={flows}
            id={idOf}
            sort={sort}
            onSort={(by) => go(change({ sort: by }), true)}
            details={(f) => <Details flow={f} />}
          />
        </>
      )}
      {answer.loading && !answer.data && <p class="loading">Asking…</p>}
    </>
  )
}

const idOf = (f: FlowJson) => [
  f.connectionId, f.node, f.direction, f.transport, f.source?.address, f.source?.port, f.destination?.address, f.destination?.port, f.icmpType,
  f.icmpCode, f.interfaces?.join(),
].join(' ')

const directionNames: Record<string, string> = { egress: 'out', ingress: 'in', transit: 'via' }

const source = (f: FlowJson) => f.source ?? {}
const destination = (f: FlowJson) => f.destination ?? {}

/** A translated address is shown with who was behind it: service→backend, client→address. */
function End({ of, by }: { of: EndpointJson; by?: EndpointJson | undefined }) {
  const name = nameOf(of)
  const behind = by && nameOf(by) !== name ? `→${nameOf(by)}` : ''
  return <span class="end" title={[withPort(of.address ?? '', of.port), fullName(of)].filter(Boolean).join(' ')}>{withPort(name, of.port)}{behind}</span>
}

function trouble(f: FlowJson): string {
  return [
    f.outcome && f.outcome !== 'closed' && `✕ ${f.outcome}`,
    num(f.retransmits) > 0 && `▲ ${count(num(f.retransmits))} sent again`,
    num(f.zeroWindows) > 0 && `▲ ${count(num(f.zeroWindows))} zero windows`,
    num(f.lost) > 0 && `may lack ${count(num(f.lost))} packets`,
  ].filter(Boolean).join(', ')
}

const columns: Column<FlowJson>[] = [
  { key: 'time', title: 'Time', order: (f) => Date.parse(f.end ?? ''), cell: (f) => <time dateTime={f.end} title={f.end}>{when(f.end)}</time> },
  {
    key: 'dir', title: 'Dir', wide: true, order: (f) => enumName(f.direction, 'DIRECTION'),
    cell: (f) => directionNames[enumName(f.direction, 'DIRECTION')] ?? '',
  },
  { key: 'protocol', title: 'Protocol', wide: true, order: (f) => f.transport ?? '', cell: (f) => f.transport },
  { key: 'source', title: 'Source', order: (f) => nameOf(source(f)), cell: (f) => <End of={source(f)} by={f.origin} /> },
  { key: 'destination', title: 'Destination', order: (f) => nameOf(destination(f)), cell: (f) => <End of={destination(f)} by={f.backend} /> },
  { key: 'packets', title: 'Packets', right: true, wide: true, order: (f) => num(f.packets), cell: (f) => count(num(f.packets)) },
  { key: 'bytes', title: 'Bytes', right: true, order: (f) => num(f.bytes), cell: (f) => bytes(num(f.bytes)) },
  { key: 'rtt', title: 'RTT', right: true, wide: true, order: (f) => seconds(f.srtt), cell: (f) => (f.srtt ? duration(seconds(f.srtt)) : '') },
  {
    key: 'trouble', title: 'Trouble', order: (f) => num(f.retransmits) + num(f.zeroWindows) + (trouble(f) ? 1 : 0),
    cell: (f) => <span class={trouble(f).startsWith('✕') ? 'bad' : 'warning'}>{trouble(f)}</span>,
  },
]

function Details({ flow: f }: { flow: FlowJson }) {
  return (
    <div class="cards">
      <EndDetails title="Source" of={f.source} />
      <EndDetails title="Destination" of={f.destination} />
      {f.origin && <EndDetails title="Source before translation" of={f.origin} />}
      {f.backend && <EndDetails title="Served by" of={f.backend} />}
      <section>
        <h3>Flow</h3>
        <List rows={[
          ['Start', instant(f.start)], ['Last packet', instant(f.end)], ['Ended', f.ended ? 'yes' : 'no'], ['Outcome', f.outcome],
          ['Seen by', f.node], ['Interfaces', f.interfaces?.join(', ')], ['Opened by', enumName(f.initiator, 'INITIATOR')],
          ['Connections', count(num(f.connections))], ['Connection id', f.connectionId],
          ['ICMP', f.transport?.includes('icmp') ? `type ${f.icmpType ?? 0}, code ${f.icmpCode ?? 0}` : ''], ['TCP flags', flags(f.tcpFlags)],
        ]} />
      </section>
      <section>
        <h3>Health</h3>
        <List rows={[
          ['Round trip', f.srtt && `${duration(seconds(f.srtt))}, at least ${duration(seconds(f.minRtt))}`],
          ['Handshake', f.handshake && duration(seconds(f.handshake))],
          ['Sent again', f.transport === 'tcp' ? count(num(f.retransmits)) : ''],
          ['Zero windows', f.transport === 'tcp' ? count(num(f.zeroWindows)) : ''],
          ['Other end', f.otherEnd && `${count(num(f.otherEnd.packets))} packets, ${bytes(num(f.otherEnd.bytes))} on ${f.otherEnd.node || 'the same node'}`],
          ['May lack', num(f.lost) > 0 ? `${count(num(f.lost))} packets` : ''],
        ]} />
      </section>
    </div>
  )
}

function flags(bits: number | undefined): string {
  return ['fin', 'syn', 'rst', 'psh', 'ack', 'urg', 'ece', 'cwr'].filter((_, i) => (bits ?? 0) & (1 << i)).join(', ')
}

function EndDetails({ title, of: e = {} }: { title: string; of?: EndpointJson | undefined }) {
  const subject = subjectOf(e)
  return (
    <section>
      <h3>{title}</h3>
      <List rows={[
        ['Address', withPort(e.address ?? '', e.port)], ['DNS name', e.name], ['Namespace', e.namespace], ['Pod', e.pod],
        ['Container', e.container || e.containerId?.slice(0, 12)], ['Workload', e.workload && `${e.workloadKind ?? ''} ${e.workload}`],
        ['Service', e.service], ['Process', e.process && `${e.process}${e.pid ? ` (${e.pid})` : ''}`], ['Cgroup', e.cgroup], ['Node', e.node],
      ]} />
      <p class="actions">
        {subject && <a class="button" href={linkTo('pod', subject)} onClick={follow}>{e.pod ? 'Pod' : 'cgroup' in subject ? 'Cgroup' : 'Container'}</a>}
        {e.address && <a class="button" href={change({ ip: e.address, sort: null })} onClick={follow}>Only this address</a>}
      </p>
    </section>
  )
}

function List({ rows }: { rows: [string, string | undefined][] }) {
  return <dl>{rows.filter(([, v]) => v).map(([k, v]) => <div key={k}><dt>{k}</dt><dd>{v}</dd></div>)}</dl>
}
