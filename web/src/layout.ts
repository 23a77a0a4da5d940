// Where things are on the map: nodes in a box for each group, the boxes where the forces between them put them.
import { forceLink, forceManyBody, forceSimulation, forceX, forceY, type SimulationLinkDatum, type SimulationNodeDatum } from 'd3-force'
import type { Edge, Node } from './graph'

export const nodeWidth = 168
export const nodeHeight = 30
const gap = 8
const padding = 12
export const titleHeight = 24
// Between boxes there is room for edges to turn.
const margin = 56

export interface Point {
  x: number
  y: number
}

/** x and y are the left upper corner. */
export interface Box extends Point {
  width: number
  height: number
}

export interface Layout {
  area: Box
  groups: Map<string, Box>
  /** By node id. */
  nodes: Map<string, Box>
}

interface Group extends SimulationNodeDatum {
  name: string
  nodes: Node[]
  columns: number
  width: number
  height: number
  /** -1 where all connections begin, 1 where all end. */
  lean: number
  x: number
  y: number
}

/** The same edges are always placed the same: what is random in forces is seeded. */
export function place(edges: Edge[]): Layout {
  const groups = groupsOf(edges)
  spread(groups, edges)
  const layout: Layout = { area: { x: 0, y: 0, width: 0, height: 0 }, groups: new Map(), nodes: new Map() }
  for (const group of groups) {
    layout.groups.set(group.name, { x: group.x - group.width / 2, y: group.y - group.height / 2, width: group.width, height: group.height })
  }
  for (let pass = 0; pass < 3; pass++) {
    for (const group of groups) fill(group, layout)
    for (const group of groups) untangle(group, edges, layout)
  }
  for (const group of groups) fill(group, layout)
  layout.area = wholeOf([...layout.groups.values()])
  return layout
}

function groupsOf(edges: Edge[]): Group[] {
  const groups = new Map<string, Group>()
  const nodes = new Map(edges.flatMap((e) => [e.a, e.b]).map((n) => [n.id, n]))
  for (const node of [...nodes.values()].sort((a, b) => (a.label < b.label ? -1 : a.label > b.label ? 1 : a.id < b.id ? -1 : 1))) {
    let group = groups.get(node.group)
    if (!group) groups.set(node.group, (group = { name: node.group, nodes: [], columns: 1, width: 0, height: 0, lean: 0, x: 0, y: 0 }))
    group.nodes.push(node)
  }
  for (const group of groups.values()) {
    group.columns = Math.max(1, Math.min(4, Math.ceil(group.nodes.length / 9)))
    const rows = Math.ceil(group.nodes.length / group.columns)
    group.width = group.columns * (nodeWidth + gap) - gap + 2 * padding
    group.height = titleHeight + rows * (nodeHeight + gap) - gap + 2 * padding - 4
    let out = 0
    let into = 0
    for (const e of edges) {
      if (!e.directed || e.a.group === e.b.group) continue
      if (e.a.group === group.name) out++
      if (e.b.group === group.name) into++
    }
    group.lean = out + into > 0 ? (into - out) / (out + into) : 0
  }
  return [...groups.values()].sort((a, b) => (a.name < b.name ? -1 : 1))
}

// Clients to the left, servers to the right, who talk to each other near each other, and nobody on top of another.
function spread(groups: Group[], edges: Edge[]) {
  const byName = new Map(groups.map((g) => [g.name, g]))
  const links = new Map<string, SimulationLinkDatum<Group>>()
  for (const e of edges) {
    const [source, target] = [byName.get(e.a.group), byName.get(e.b.group)]
    if (source && target && source !== target) links.set([e.a.group, e.b.group].sort().join(' '), { source, target })
  }
  const wide = Math.sqrt(groups.reduce((sum, g) => sum + (g.width + margin) * (g.height + margin), 0) * 1.7)
  groups.forEach((g, i) => {
    g.x = (g.lean * wide) / 2
    g.y = ((i + 0.5) / groups.length - 0.5) * (wide / 1.7)
  })
  forceSimulation(groups)
    .force('link', forceLink<Group, SimulationLinkDatum<Group>>([...links.values()]).distance(margin).strength(0.05))
    .force('charge', forceManyBody<Group>().strength(-60))
    .force('x', forceX<Group>((g) => (g.lean * wide) / 2).strength(0.12))
    .force('y', forceY<Group>(0).strength(0.1))
    .force('apart', () => apart(groups, 0.6))
    .stop()
    .tick(250)
  // What the forces could not settle.
  for (let i = 0; i < 200 && apart(groups, 1); i++);
}

/** Moves boxes that overlap apart, the shorter way. It tells whether there were any. */
function apart(groups: Group[], share: number): boolean {
  let moved = false
  groups.forEach((a, i) => {
    for (const b of groups.slice(i + 1)) {
      const x = (a.width + b.width) / 2 + margin - Math.abs(a.x - b.x)
      const y = (a.height + b.height) / 2 + margin / 2 - Math.abs(a.y - b.y)
      if (x <= 0.5 || y <= 0.5) continue
      moved = true
      if (x < y) {
        const by = (x / 2) * share * (a.x <= b.x ? 1 : -1)
        a.x -= by
        b.x += by
      } else {
        const by = (y / 2) * share * (a.y <= b.y ? 1 : -1)
        a.y -= by
        b.y += by
      }
    }
  })
  return moved
}

/** Puts the nodes of a group into its box, column by column. */
function fill(group: Group, layout: Layout) {
  const box = layout.groups.get(group.name)
  if (!box) return
  const rows = Math.ceil(group.nodes.length / group.columns)
  group.nodes.forEach((node, i) => {
    layout.nodes.set(node.id, {
      x: box.x + padding + Math.floor(i / rows) * (nodeWidth + gap),
      y: box.y + titleHeight + padding - 4 + (i % rows) * (nodeHeight + gap),
      width: nodeWidth,
      height: nodeHeight,
    })
  })
}

/** Orders the nodes of a group by where those are that they talk to: edges cross less. */
function untangle(group: Group, edges: Edge[], layout: Layout) {
  const heights = new Map<string, number[]>()
  const add = (node: Node, peer: Node) => {
    const at = layout.nodes.get(peer.id)
    if (node.group === group.name && peer.group !== group.name && at) heights.set(node.id, [...(heights.get(node.id) ?? []), at.y])
  }
  for (const e of edges) {
    add(e.a, e.b)
    add(e.b, e.a)
  }
  const mean = (node: Node) => {
    const all = heights.get(node.id) ?? [layout.nodes.get(node.id)?.y ?? 0]
    return all.reduce((sum, y) => sum + y, 0) / all.length
  }
  const means = new Map(group.nodes.map((n) => [n.id, mean(n)]))
  group.nodes.sort((a, b) => (means.get(a.id) ?? 0) - (means.get(b.id) ?? 0) || (a.id < b.id ? -1 : 1))
}

/** What shows all boxes, and a few of them not larger than they are read. */
function wholeOf(boxes: Box[]): Box {
  const [border, least] = [20, { width: 900, height: 520 }]
  const [left, top] = [Math.min(...boxes.map((b) => b.x)), Math.min(...boxes.map((b) => b.y))]
  const [right, bottom] = [Math.max(...boxes.map((b) => b.x + b.width)), Math.max(...boxes.map((b) => b.y + b.height))]
  const width = Math.max(right - left + 2 * border, least.width)
  const height = Math.max(bottom - top + 2 * border, least.height)
  return { x: (left + right - width) / 2, y: (top + bottom - height) / 2, width, height }
}

export interface Curve {
  path: string
  middle: Point
}

/** A line from one node to another, which leaves and arrives at the sides that face each other. */
export function curve(from: Box, to: Box): Curve {
  if (from === to) {
    const x = from.x + from.width
    return bezier({ x, y: from.y + 9 }, { x: x + 30, y: from.y - 6 }, { x: x + 30, y: from.y + from.height + 6 }, { x, y: from.y + from.height - 9 })
  }
  const rightward = to.x + to.width / 2 - (from.x + from.width / 2)
  let a: Point
  let b: Point
  let pull: number
  if (Math.abs(rightward) < nodeWidth * 0.8) {
    // One above the other: around the right side.
    a = { x: from.x + from.width, y: from.y + from.height / 2 }
    b = { x: to.x + to.width, y: to.y + to.height / 2 }
    pull = 26 + Math.abs(a.y - b.y) * 0.12 + Math.max(0, Math.abs(a.x - b.x))
    return bezier(a, { x: Math.max(a.x, b.x) + pull, y: a.y }, { x: Math.max(a.x, b.x) + pull, y: b.y }, b)
  }
  const side = rightward > 0 ? 1 : 0
  a = { x: from.x + from.width * side, y: from.y + from.height / 2 }
  b = { x: to.x + to.width * (1 - side), y: to.y + to.height / 2 }
  pull = Math.max(24, Math.abs(b.x - a.x) * 0.45) * (side ? 1 : -1)
  return bezier(a, { x: a.x + pull, y: a.y }, { x: b.x - pull, y: b.y }, b)
}

function bezier(a: Point, c: Point, d: Point, b: Point): Curve {
  const at = (p: Point) => `${p.x.toFixed(1)},${p.y.toFixed(1)}`
  const mid = (k: 'x' | 'y') => (a[k] + 3 * c[k] + 3 * d[k] + b[k]) / 8
  return { path: `M${at(a)}C${at(c)} ${at(d)} ${at(b)}`, middle: { x: mid('x'), y: mid('y') } }
}
