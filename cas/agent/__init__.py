"""Running part of the work in a process with fewer rights.

One side, :class:`cas.agent.process.AgentProcess`, starts such a process and asks it; the other,
:func:`cas.agent.serving.serve`, is all that the process does. What each agent is asked is its own
package's business; here is what they share: start, confinement, messages, stop, failure.
"""
