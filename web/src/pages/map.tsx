import { useEffect, useMemo, useState } from 'preact/hooks'
import { call } from '../api'
import { useAnswer } from '../ask'
import { selectionOf, termsOf } from '../filter'
import { FilterBar } from '../filterbar'
import { bytes, count, percent } from '../format'
import {
  dimensionsOf, type Edge, endFilter, flowsOf, type Graph, graphOf, healthOf, host, isOfHost, measures, type Node, outside, pick, total,
} from '../graph'
import { MapView } from '../mapview'
import { Coverage, Empty, Failure } from '../notices'
import { bounds, lengthOf, type Range, timeOf, useRange } from '../range'
import { type Changes, change, follow, go, linkTo, usePlace } from '../url'

const mostGroups = 5000
const sizes = ['40', '100', '250']

export function MapPage() {
  const { params } = usePlace()
  const range = useRange()
  const terms = termsOf(params)
  const selection = selectionOf(terms)
  const [isHost, setHost] = useState(false)
  const dimensions = useMemo(() => dimensionsOf(isHost), [isHost])
  const key = JSON.stringify([range.span, selection, isHost])
  const answer = useAnswer(key, timeOf(range), (signal) => call('Aggregate', {
    ...bounds(range), signal: 'SIGNAL_FLOWS', allow: selection.allow, deny: selection.deny, by: dimensions, measures, top: mostGroups,
  }, signal))
  const seen = isOfHost(answer.data?.groups ?? [], dimensions)
  useEffect(() => { if (seen !== undefined) setHost(seen) }, [seen])
  const graph = useMemo(() => graphOf(answer.data?.groups ?? [], dimensions), [answer.data])
  const asked = params.get('edges') ?? ''
  const most = Number(sizes.includes(asked) ? asked : sizes[0])
  const shown = useMemo(() => pick(graph.edges, most), [graph, most])
  const chosen = params.get('focus') ?? ''
  const choose = (id: string) => go(change({ focus: id || null }), true)

  return (
    <>
      <div class="toolbar">
        <FilterBar terms={terms} clears={['focus']} />
        <label>Show{' '}
          <select value={String(most)} onChange={(e) => go(change({ edges: e.currentTarget.value }), true)}>
            {sizes.map((s) => <option key={s} value={s}>{s} connections</option>)}
          </select>
        </label>
      </div>
      <Failure error={answer.error} />
      <Coverage told={answer.data} of="groups of flows" shown={answer.data?.groups?.length} />
      {answer.data && (graph.nodes.size === 0
        ? <Empty what="traffic" filtered={terms.length > 0} />
        : (
          <div class="map-page">
            <MapView edges={shown} chosen={chosen} onChoose={choose} linkOf={onlyGroup} />
            <aside aria-label="Details">
              <Legend shown={shown.length} of={graph.edges.length} />
              <Panel graph={graph} chosen={chosen} choose={choose} range={range} />
            </aside>
          </div>
        ))}
      {answer.loading && !answer.data && <p class="loading">Asking…</p>}
    </>
  )
}

/** Namespaces can be chosen by name; the host and the outside world are none. */
const onlyGroup = (group: string) => (group === host || group === outside ? null : change({ namespace: group, focus: null }))

function Legend({ shown, of }: { shown: number; of: number }) {
  return (
    <div class="legend">
      <p>{shown < of ? `${shown} of ${count(of)} connections: the largest, and the largest of those in trouble.` : `${count(of)} ${of === 1 ? 'connection' : 'connections'}.`}</p>
      <ul>
        <li><Sample health="good" /> width: bytes</li>
        <li><Sample health="warning" /> ▲ retransmits from 1 %, or failures</li>
        <li><Sample health="bad" /> ✕ retransmits from 5 %, or 10 % failed</li>
      </ul>
    </div>
  )
}

function Sample({ health }: { health: string }) {
  return <svg width="44" height="10" aria-hidden="true"><line x1="0" y1="5" x2="44" y2="5" class={`edge-line ${health}`} stroke-width="3" /></svg>
}

interface PanelProps {
  graph: Graph
  chosen: string
  choose: (id: string) => void
  range: Range
}

/** What is known of the chosen node or edge, or the largest edges of all. */
function Panel({ graph, chosen, choose, range }: PanelProps) {
  const node = graph.nodes.get(chosen)
  const edge = graph.edges.find((e) => e.id === chosen)
  if (node) return <NodePanel node={node} graph={graph} choose={choose} range={range} />
  if (edge) return <EdgePanel edge={edge} choose={choose} range={range} />
  return <EdgeList title="Largest connections" edges={graph.edges} choose={choose} />
}

const rate = (n: number, range: Range) => `${bytes(n / lengthOf(range))}/s`

function NodePanel({ node, graph, choose, range }: { node: Node; graph: Graph; choose: (id: string) => void; range: Range }) {
  const edges = graph.edges.filter((e) => e.a === node || e.b === node)
  const services = [...node.services].filter((s) => node.kind !== 'service' && s).sort()
  const flows = flowsOf(node)
  const known = Object.keys(flows).length > 0
  return (
    <section class="panel">
      <h2>{node.label}</h2>
      <dl>
        <div><dt>Is</dt><dd>{kindNames[node.kind]} in {node.group}</dd></div>
        {services.length > 0 && <div><dt>Service</dt><dd>{services.join(', ')}</dd></div>}
        <div><dt>Traffic</dt><dd>{bytes(node.bytes)}, {rate(node.bytes, range)}</dd></div>
      </dl>
      <p class="actions">
        {known && <a class="button" href={change({ ...flows, focus: null })} onClick={follow}>Only this</a>}
        {known && <a class="button" href={linkTo('flows', flows)} onClick={follow}>Flows</a>}
        {node.kind === 'workload' && <a class="button" href={linkTo('pod', { workload: node.id.slice('workload:'.length) })} onClick={follow}>Pods</a>}
        {node.kind === 'unit' && <a class="button" href={linkTo('pod', flows)} onClick={follow}>Unit</a>}
        {node.kind === 'container' && <a class="button" href={linkTo('pod', { container: node.label })} onClick={follow}>Container</a>}
        <button type="button" class="quiet" onClick={() => choose('')}>Close</button>
      </p>
      <EdgeList title="Talks to" edges={edges} of={node} choose={choose} />
    </section>
  )
}

const kindNames: Record<Node['kind'], string> = {
  workload: 'workload', service: 'Service', container: 'container', unit: 'systemd unit', process: 'process', name: 'DNS name', unknown: 'addresses without a name',
}

function EdgePanel({ edge, choose, range }: { edge: Edge; choose: (id: string) => void; range: Range }) {
  const [from, to] = [endFilter(edge.a), endFilter(edge.b)]
  const flows: Changes = from && to ? { from, to } : { ...flowsOf(edge.a), ...flowsOf(edge.b) }
  return (
    <section class="panel">
      <h2>{edge.a.label} {edge.directed ? '→' : '–'} {edge.b.label}</h2>
      <dl>
        <div><dt>State</dt><dd>{state(edge)}</dd></div>
        <div><dt>Sent</dt><dd>{bytes(edge.sent)}, {rate(edge.sent, range)}</dd></div>
        <div><dt>Received</dt><dd>{bytes(edge.received)}, {rate(edge.received, range)}</dd></div>
        <div><dt>Opened</dt><dd>{count(edge.connections)} connections</dd></div>
        <div><dt>Failed</dt><dd>{count(edge.errors)}</dd></div>
        <div><dt>Sent again</dt><dd>{count(edge.retransmits)} of {count(edge.packets)} packets</dd></div>
      </dl>
      <p class="actions">
        <a class="button" href={linkTo('flows', flows)} onClick={follow}>Flows</a>
        {edge.errors > 0 && <a class="button" href={linkTo('flows', { ...flows, outcome: 'reset,refused,timeout' })} onClick={follow}>Failed ones</a>}
        <button type="button" onClick={() => choose(edge.a.id)}>{edge.a.label}</button>
        <button type="button" onClick={() => choose(edge.b.id)}>{edge.b.label}</button>
        <button type="button" class="quiet" onClick={() => choose('')}>Close</button>
      </p>
    </section>
  )
}

/** In words, for eyes that the colours and patterns do not tell enough. */
export function state(e: Edge): string {
  const sign = { good: '✓', warning: '▲', bad: '✕' }[healthOf(e)]
  const parts = [
    e.retransmits > 0 && `${percent(e.retransmits / Math.max(1, e.packets))} sent again`,
    e.errors > 0 && `${count(e.errors)} failed`,
  ].filter(Boolean)
  return `${sign} ${parts.join(', ') || 'no trouble'}`
}

function EdgeList({ title, edges, of, choose }: { title: string; edges: Edge[]; of?: Node; choose: (id: string) => void }) {
  const most = 30
  return (
    <section class="edges">
      <h3>{title}</h3>
      <ul>
        {edges.slice(0, most).map((e) => {
          const peer = of && (e.a === of ? e.b : e.a)
          const arrow = e.directed ? '→' : '–'
          return (
            <li key={e.id}>
              <button type="button" onClick={() => choose(e.id)}>
                <span class="who">{peer ? `${!e.directed ? '–' : e.a === of ? '→' : '←'} ${peer.label}` : `${e.a.label} ${arrow} ${e.b.label}`}</span>
                <span class="what">{bytes(total(e))}</span>
                {healthOf(e) !== 'good' && <span class={`state ${healthOf(e)}`}>{state(e)}</span>}
              </button>
            </li>
          )
        })}
      </ul>
      {edges.length > most && <p>and {count(edges.length - most)} more</p>}
    </section>
  )
}
