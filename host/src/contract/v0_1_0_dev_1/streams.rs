//! Logs of pods and commands in them: builders that keep what they are told, and streams.

use super::{Answered, GuestState, contract, pods, wait};
use wasmtime::component::Resource;

impl contract::pods::HostByteStream for GuestState {
    async fn ready(
        &mut self,
        this: Resource<pods::ByteStream>,
    ) -> wasmtime::Result<Resource<wait::Source>> {
        let source = self.table.get(&this)?.source();
        self.push(source)
    }

    async fn read(
        &mut self,
        this: Resource<pods::ByteStream>,
        max: u32,
    ) -> Answered<Option<Vec<u8>>> {
        let stream = self.table.get(&this)?;
        self.cpu.pause();
        let read = stream.read(&self.door, max);
        self.back(read)
    }

    async fn drop(&mut self, this: Resource<pods::ByteStream>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl contract::pods::HostLogQuery for GuestState {
    async fn new(
        &mut self,
        namespace: String,
        pod: String,
    ) -> wasmtime::Result<Resource<pods::LogQuery>> {
        self.hold(namespace.len() + pod.len())?;
        self.push(pods::LogQuery {
            namespace,
            pod,
            ..pods::LogQuery::default()
        })
    }

    async fn container(
        &mut self,
        this: Resource<pods::LogQuery>,
        name: String,
    ) -> wasmtime::Result<()> {
        self.hold(name.len())?;
        self.table.get_mut(&this)?.container = Some(name);
        Ok(())
    }

    async fn follow(&mut self, this: Resource<pods::LogQuery>) -> wasmtime::Result<()> {
        self.table.get_mut(&this)?.follow = true;
        Ok(())
    }

    async fn previous(&mut self, this: Resource<pods::LogQuery>) -> wasmtime::Result<()> {
        self.table.get_mut(&this)?.previous = true;
        Ok(())
    }

    async fn since(&mut self, this: Resource<pods::LogQuery>, age: u32) -> wasmtime::Result<()> {
        self.table.get_mut(&this)?.since_ms = Some(age);
        Ok(())
    }

    async fn open(
        &mut self,
        this: Resource<pods::LogQuery>,
    ) -> Answered<Resource<pods::ByteStream>> {
        let query = self.table.get(&this)?;
        self.cpu.pause();
        let opened = pods::open(&self.door, query).await;
        self.opened(opened)
    }

    async fn drop(&mut self, this: Resource<pods::LogQuery>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl contract::pods::HostExecution for GuestState {
    async fn output(
        &mut self,
        this: Resource<pods::Execution>,
    ) -> wasmtime::Result<Resource<pods::ByteStream>> {
        let stream = self.table.get(&this)?.output();
        self.push(stream)
    }

    async fn errors(
        &mut self,
        this: Resource<pods::Execution>,
    ) -> wasmtime::Result<Resource<pods::ByteStream>> {
        let stream = self.table.get(&this)?.errors();
        self.push(stream)
    }

    async fn exit(&mut self, this: Resource<pods::Execution>) -> Answered<Option<i32>> {
        let execution = self.table.get(&this)?;
        self.cpu.pause();
        let exit = pods::exit(&self.door, execution);
        self.back(exit)
    }

    async fn drop(&mut self, this: Resource<pods::Execution>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl contract::pods::HostCommand for GuestState {
    async fn new(
        &mut self,
        namespace: String,
        pod: String,
        program: String,
    ) -> wasmtime::Result<Resource<pods::Command>> {
        self.hold(namespace.len() + pod.len() + program.len())?;
        self.push(pods::Command {
            namespace,
            pod,
            container: None,
            argv: vec![program],
        })
    }

    async fn container(
        &mut self,
        this: Resource<pods::Command>,
        name: String,
    ) -> wasmtime::Result<()> {
        self.hold(name.len())?;
        self.table.get_mut(&this)?.container = Some(name);
        Ok(())
    }

    async fn arg(&mut self, this: Resource<pods::Command>, value: String) -> wasmtime::Result<()> {
        self.hold(value.len() + size_of::<String>())?;
        self.table.get_mut(&this)?.argv.push(value);
        Ok(())
    }

    async fn start(
        &mut self,
        this: Resource<pods::Command>,
        deadline: u32,
    ) -> Answered<Resource<pods::Execution>> {
        let command = self.table.get(&this)?;
        self.cpu.pause();
        let started = pods::start(&self.door, command, deadline).await;
        self.opened(started)
    }

    async fn drop(&mut self, this: Resource<pods::Command>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl contract::pods::Host for GuestState {}
