// The filters of `orb8 flows`, by the same names and with the same values, as parameters of a URL: pod=shop/cart&not.port=53.
import type { DirectionJson, EndpointFilterJson, FlowFilterJson } from './gen/orb8/v1/orb8_pb'
import { own } from './url'

export interface Field {
  key: string
  label: string
  hint: string
  /** Values to offer. */
  values?: string[]
  /** Adds a value to a filter; an error's text says what a value looks like. */
  add: (filter: Choice, value: string) => void
}

/** What must be true of a flow at the same time. */
interface Choice {
  flow: FlowFilterJson
  from: EndpointFilterJson[]
  to: EndpointFilterJson[]
}

type Lists<T> = { [K in keyof T]-?: NonNullable<T[K]> extends string[] ? K : never }[keyof T]

function put<T, K extends Lists<T>>(to: T, key: K, value: string) {
  to[key] = [...((to[key] as string[] | undefined) ?? []), value] as T[K]
}

const list = (key: Lists<FlowFilterJson>) => (c: Choice, value: string) => put(c.flow, key, value)

const directions: Record<string, DirectionJson> = {
  ingress: 'DIRECTION_INGRESS', in: 'DIRECTION_INGRESS', egress: 'DIRECTION_EGRESS', out: 'DIRECTION_EGRESS',
  transit: 'DIRECTION_TRANSIT', via: 'DIRECTION_TRANSIT',
}

function port(value: string): number {
  const n = Number(value)
  if (!/^\d+$/.test(value) || n < 1 || n > 65535) throw new Error(`"${value}" is no port; use a number from 1 to 65535`)
  return n
}

function cgroup(c: Choice, value: string) {
  if (!value.startsWith('/')) throw new Error(`"${value}" is not the path of a cgroup; use for example /system.slice/nginx.service`)
  put(c.flow, 'cgroups', value)
}

const outcomes = ['closed', 'reset', 'refused', 'timeout']

function outcome(c: Choice, value: string) {
  if (!outcomes.includes(value)) throw new Error(`"${value}" is unknown; use ${outcomes.join(', ')}`)
  put(c.flow, 'outcomes', value)
}

export const fields: Field[] = [
  { key: 'from', label: 'From', hint: 'shop/cart-0, ns/shop, svc/shop/cart, deploy/shop/cart, 10.0.0.0/8, *.example.com, with or without :PORT', add: (c, v) => { c.from.push(endOf(v)) } },
  { key: 'to', label: 'To', hint: 'as From', add: (c, v) => { c.to.push(endOf(v)) } },
  { key: 'pod', label: 'Pod', hint: 'cart-0 or shop/cart-0, either end', add: list('pods') },
  { key: 'namespace', label: 'Namespace', hint: 'shop, either end', add: list('namespaces') },
  { key: 'workload', label: 'Workload', hint: 'cart or shop/cart, either end', add: list('workloads') },
  { key: 'service', label: 'Service', hint: 'cart or shop/cart, either end', add: list('services') },
  { key: 'label', label: 'Label', hint: 'app=web, either end', add: list('labels') },
  { key: 'container', label: 'Container', hint: 'a name, or 4 digits or more of an id', add: list('containers') },
  { key: 'cgroup', label: 'Cgroup', hint: '/system.slice/nginx.service and all below it, either end', add: cgroup },
  { key: 'ip', label: 'Address', hint: '10.0.0.7 or 10.0.0.0/8, either end', add: list('ips') },
  { key: 'port', label: 'Port', hint: '443, either end', add: (c, v) => { c.flow.ports = [...(c.flow.ports ?? []), port(v)] } },
  { key: 'name', label: 'DNS name', hint: '*.example.com', add: list('names') },
  { key: 'protocol', label: 'Protocol', hint: 'tcp, udp, icmp, sctp or a number', values: ['tcp', 'udp', 'icmp', 'ipv6-icmp', 'sctp'], add: list('protocols') },
  {
    key: 'direction', label: 'Direction', hint: 'ingress, egress or transit', values: ['ingress', 'egress', 'transit'],
    add: (c, v) => {
      const direction = own(directions, v)
      if (!direction) throw new Error(`"${v}" is unknown; use ingress, egress or transit`)
      c.flow.directions = [...(c.flow.directions ?? []), direction]
    },
  },
  { key: 'outcome', label: 'Outcome', hint: 'closed, reset, refused or timeout', values: outcomes, add: outcome },
  { key: 'node', label: 'Node', hint: 'the node that saw the flow', add: list('nodes') },
]

export const fieldOf = (key: string) => fields.find((f) => f.key === key)

const kinds: Record<string, Lists<EndpointFilterJson>> = {
  po: 'pods', pod: 'pods', pods: 'pods', ns: 'namespaces', namespace: 'namespaces', namespaces: 'namespaces',
  svc: 'services', service: 'services', services: 'services',
  workload: 'workloads', deploy: 'workloads', deployment: 'workloads', sts: 'workloads', statefulset: 'workloads', ds: 'workloads',
  daemonset: 'workloads', rs: 'workloads', replicaset: 'workloads', job: 'workloads', cronjob: 'workloads',
  name: 'names', dns: 'names', ip: 'ips', cidr: 'ips',
}

const isAddress = (s: string) => /^\d{1,3}(\.\d{1,3}){3}(\/\d{1,2})?$/.test(s) || (s.includes(':') && /^[0-9a-f:.]+(\/\d{1,3})?$/i.test(s))

/** Reads one end as `orb8 flows --from` does. */
export function endOf(value: string): EndpointFilterJson {
  const end: EndpointFilterJson = {}
  let host = value
  const bracketed = /^\[([0-9a-f:.]+)\](?::(\d+))?$/i.exec(value)
  if (bracketed) {
    host = bracketed[1] ?? ''
    if (bracketed[2]) end.ports = [port(bracketed[2])]
  } else if (value.split(':').length === 2) {
    const [before = '', after = ''] = value.split(':')
    host = before
    end.ports = [port(after)]
  }
  if (host === '' && end.ports) return end
  const slash = host.indexOf('/')
  const word = slash < 0 ? '' : host.slice(0, slash)
  const rest = host.slice(slash + 1)
  const kind = own(kinds, word)
  if (kind && rest !== '') put(end, kind, kind === 'namespaces' ? rest.replace(/\/$/, '') : rest)
  else if (isAddress(host)) put(end, 'ips', host)
  else if (word && rest === '') put(end, 'namespaces', word)
  else if (word) put(end, 'pods', host)
  else if (/[*.]/.test(host)) put(end, 'names', host)
  else put(end, 'pods', host)
  return end
}

/** One filter in the address bar. */
export interface Term {
  key: string
  not: boolean
  value: string
}

export function termsOf(params: URLSearchParams): Term[] {
  const terms: Term[] = []
  for (const [name, values] of params) {
    const not = name.startsWith('not.')
    const key = not ? name.slice(4) : name
    if (!fieldOf(key)) continue
    // Commas belong to a label selector.
    for (const value of key === 'label' ? [values] : values.split(',')) {
      if (value.trim()) terms.push({ key, not, value: value.trim() })
    }
  }
  return terms
}

/** The parameters that make these terms, and remove those that are not there. */
export function paramsOf(terms: Term[]): Record<string, string[] | null> {
  const params: Record<string, string[] | null> = {}
  for (const { key } of fields) {
    for (const not of [false, true]) {
      const values = terms.filter((t) => t.key === key && t.not === not).map((t) => t.value)
      params[not ? `not.${key}` : key] = values.length > 0 ? values : null
    }
  }
  return params
}

export interface Selection {
  allow: FlowFilterJson[]
  deny: FlowFilterJson[]
  /** What of the terms cannot be asked. */
  errors: string[]
}

/** Values of one key are alternatives, keys must all match, and each term with "not" denies by itself. */
export function selectionOf(terms: Term[]): Selection {
  const errors: string[] = []
  const choose = (some: Term[]): FlowFilterJson[] => {
    const choice: Choice = { flow: {}, from: [], to: [] }
    for (const { key, value } of some) {
      try {
        fieldOf(key)?.add(choice, value)
      } catch (error) {
        errors.push(`${key}: ${(error as Error).message}`)
      }
    }
    return spread(choice)
  }
  const allowed = terms.filter((t) => !t.not)
  return {
    allow: allowed.length > 0 ? choose(allowed) : [],
    deny: terms.filter((t) => t.not).flatMap((t) => choose([t])),
    errors,
  }
}

// Within a filter all must match, so that alternatives of ends are filters of their own.
function spread({ flow, from, to }: Choice): FlowFilterJson[] {
  const sources = from.length > 0 ? from : [undefined]
  const destinations = to.length > 0 ? to : [undefined]
  return sources.flatMap((source) => destinations.map((destination) => ({
    ...flow, ...(source && { source }), ...(destination && { destination }),
  })))
}

/** Reads what a person types: key:value or key=value, with "not " or "-" before it; without a key it is the field's. */
export function parseTerm(text: string, key: string): Term {
  const [, not, word, value] = /^\s*(not\s+|-)?(?:([a-z]+)[:=])?\s*(.*?)\s*$/i.exec(text) ?? []
  const named = word !== undefined && fieldOf(word.toLowerCase())
  return {
    key: named ? named.key : key,
    not: not !== undefined,
    value: named || word === undefined ? (value ?? '') : text.replace(/^\s*(not\s+|-)/i, '').trim(),
  }
}
