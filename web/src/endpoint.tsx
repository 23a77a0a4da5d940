// Names of the ends of flows. All of them come from the network or from processes: they are shown as text and as nothing else.
import type { EndpointJson } from './gen/orb8/v1/orb8_pb'
import type { Changes } from './url'

const lastOf = (path: string) => path.slice(path.lastIndexOf('/') + 1)

/** The name that tells most in few letters, as the CLI's tables have it. */
export function nameOf(e: EndpointJson): string {
  const unit = lastOf(e.cgroup ?? '')
  // A scope or slice holds whatever a login or the system started in it: the process says more.
  const isGroup = unit === '' || /\.(scope|slice)$/.test(unit)
  return e.pod || e.container || (e.containerId ?? '').slice(0, 12) || e.service || e.name || (isGroup && e.process) || unit || e.node ||
    e.address || ''
}

export const withPort = (name: string, port?: number) => (port ? (name.includes(':') ? `[${name}]:${port}` : `${name}:${port}`) : name)

/** NAMESPACE/POD/CONTAINER or NAMESPACE/SERVICE, or else what the host knows. */
export function fullName(e: EndpointJson): string {
  const parts = [e.namespace, e.pod, e.container, e.pod ? '' : e.service].filter(Boolean)
  return parts.length > 0 ? parts.join('/') : e.cgroup || e.name || e.node || ''
}

/** The subject page's parameters for an end; null where it has no page. */
export function subjectOf(e: EndpointJson): Changes | null {
  if (e.pod) return { pod: e.namespace ? `${e.namespace}/${e.pod}` : e.pod }
  if (e.containerId) return { container: e.containerId.slice(0, 12) }
  if (e.container) return { container: e.container }
  return null
}
