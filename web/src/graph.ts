// The service map's graph: who talks to whom, of the groups that Aggregate sums flows into.
import type { AggregateGroupJson } from './gen/orb8/v1/orb8_pb'
import { num } from './api'
import { unitOf } from './endpoint'
import type { Changes } from './url'

export type Kind = 'workload' | 'service' | 'container' | 'unit' | 'process' | 'name' | 'unknown'

export interface Node {
  id: string
  kind: Kind
  /** Namespace of Kubernetes, or what stands for one on a map. */
  group: string
  label: string
  /** Kubernetes Services by which it was reached. */
  services: Set<string>
  bytes: number
}

export interface Edge {
  id: string
  /** The client and the server, where it was seen who opened connections. */
  a: Node
  b: Node
  directed: boolean
  /** Bytes from a to b, and back. */
  sent: number
  received: number
  packets: number
  connections: number
  retransmits: number
  errors: number
}

export interface Graph {
  nodes: Map<string, Node>
  edges: Edge[]
}

const endDimensions = ['namespace', 'workload', 'service', 'container', 'process', 'name', 'cgroup'] as const
type End = Record<(typeof endDimensions)[number], string>

/** What flows are grouped by. A host has units, by cgroup; in a cluster each container has a cgroup, which would be groups for nothing. */
export const dimensionsOf = (isHost: boolean) =>
  ['source', 'destination'].flatMap((end) => endDimensions.filter((d) => isHost || d !== 'cgroup').map((d) => `${end}.${d}`))

/** Whether the groups are of a host: Kubernetes has namespaces. Undefined where there are none. */
export function isOfHost(groups: AggregateGroupJson[], by: string[]): boolean | undefined {
  const namespaces = by.flatMap((d, i) => (d.endsWith('.namespace') ? [i] : []))
  return groups.length > 0 ? !groups.some((g) => namespaces.some((i) => g.by?.[i])) : undefined
}

export const measures = ['bytes', 'packets', 'connections', 'retransmits', 'errors']

export const outside = 'Outside world'
export const host = 'Host'

/** The best that is known of an end, most telling first. */
function nodeOf(end: End): Pick<Node, 'id' | 'kind' | 'group' | 'label'> {
  const group = end.namespace
  const base = (name: string) => name.slice(name.indexOf('/') + 1)
  if (end.workload) return { id: `workload:${end.workload}`, kind: 'workload', group: group || host, label: base(end.workload) }
  if (end.container) return { id: `container:${group}/${end.container}`, kind: 'container', group: group || host, label: end.container }
  if (end.service) return { id: `service:${end.service}`, kind: 'service', group: group || outside, label: base(end.service) }
  const unit = unitOf(end.cgroup)
  if (unit) return { id: `unit:${end.cgroup}`, kind: 'unit', group: host, label: unit }
  if (end.process) return { id: `process:${end.process}`, kind: 'process', group: host, label: end.process }
  if (end.name) return { id: `name:${end.name}`, kind: 'name', group: outside, label: end.name }
  return { id: 'unknown:', kind: 'unknown', group: outside, label: 'other addresses' }
}

export function graphOf(groups: AggregateGroupJson[], dimensions: string[]): Graph {
  const nodes = new Map<string, Node>()
  const pairs = new Map<string, { edge: Edge; opened: [number, number] }>()
  const nodeFor = (end: End, bytes: number): Node => {
    const made = nodeOf(end)
    let node = nodes.get(made.id)
    if (!node) nodes.set(made.id, (node = { ...made, services: new Set(), bytes: 0 }))
    if (end.service) node.services.add(end.service)
    node.bytes += bytes
    return node
  }
  const size = dimensions.length / 2
  for (const group of groups) {
    const by = group.by ?? []
    const [bytes = 0, packets = 0, connections = 0, retransmits = 0, errors = 0] = (group.values ?? []).map(num)
    const end = (at: number) => Object.fromEntries(endDimensions.map((d, i) => [d, (i < size && by[at + i]) || ''])) as End
    const source = nodeFor(end(0), bytes)
    const destination = nodeFor(end(size), bytes)
    const forward = source.id <= destination.id
    const [a, b] = forward ? [source, destination] : [destination, source]
    const id = `${a.id} ${b.id}`
    let pair = pairs.get(id)
    if (!pair) {
      const edge: Edge = { id, a, b, directed: false, sent: 0, received: 0, packets: 0, connections: 0, retransmits: 0, errors: 0 }
      pairs.set(id, (pair = { edge, opened: [0, 0] }))
    }
    if (forward) pair.edge.sent += bytes
    else pair.edge.received += bytes
    pair.opened[forward ? 0 : 1] += connections
    pair.edge.packets += packets
    pair.edge.connections += connections
    pair.edge.retransmits += retransmits
    pair.edge.errors += errors
  }
  const edges = [...pairs.values()].map(({ edge, opened }) => orient(edge, opened))
  edges.sort((x, y) => total(y) - total(x) || (x.id < y.id ? -1 : 1))
  return { nodes, edges }
}

// A connection is counted in the direction that its client sends.
function orient(edge: Edge, [forward, back]: [number, number]): Edge {
  if (forward === back) return edge
  const directed = { ...edge, directed: true }
  return forward > back ? directed : { ...directed, a: edge.b, b: edge.a, sent: edge.received, received: edge.sent }
}

export const total = (e: Edge) => e.sent + e.received

export type Health = 'good' | 'warning' | 'bad'

/** Retransmits as a share of packets, and connections that failed as a share of those that were opened. */
export function healthOf(e: Edge): Health {
  const retransmits = e.packets > 0 ? e.retransmits / e.packets : 0
  const failed = e.errors / Math.max(e.connections, e.errors, 1)
  if (retransmits >= 0.05 || failed >= 0.1) return 'bad'
  return retransmits >= 0.01 || e.errors > 0 ? 'warning' : 'good'
}

/** The largest edges, of which up to half are the largest in trouble. */
export function pick(edges: Edge[], most: number): Edge[] {
  if (edges.length <= most) return edges
  const chosen = new Set(edges.filter((e) => healthOf(e) !== 'good').slice(0, Math.ceil(most / 2)))
  for (const edge of edges) {
    if (chosen.size === most) break
    chosen.add(edge)
  }
  return edges.filter((e) => chosen.has(e))
}

/** The value of from= and to= that means a node; null where no filter can name it. */
export function endFilter(n: Node): string | null {
  const name = n.id.slice(n.id.indexOf(':') + 1)
  switch (n.kind) {
    case 'workload':
      return `workload/${name}`
    case 'service':
      return `svc/${name}`
    case 'name':
      return `name/${name}`
    default:
      return null
  }
}

/** The filters of the flow table that come nearest to a node. */
export function flowsOf(n: Node): Changes {
  if (n.kind === 'container') return { container: n.label, ...(n.group !== host && { namespace: n.group }) }
  const key = { workload: 'workload', service: 'service', unit: 'cgroup', name: 'name' }[n.kind as string]
  return key ? { [key]: n.id.slice(n.id.indexOf(':') + 1) } : {}
}
