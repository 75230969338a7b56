--
-- PostgreSQL database dump
--


-- Dumped from database version 18.4
-- Dumped by pg_dump version 18.4

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET transaction_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

--
-- Name: hpo; Type: SCHEMA; Schema: -; Owner: -
--

CREATE SCHEMA hpo;


--
-- Name: studydirection; Type: TYPE; Schema: public; Owner: -
--

CREATE TYPE public.studydirection AS ENUM (
    'NOT_SET',
    'MINIMIZE',
    'MAXIMIZE'
);


--
-- Name: trialintermediatevaluetype; Type: TYPE; Schema: public; Owner: -
--

CREATE TYPE public.trialintermediatevaluetype AS ENUM (
    'FINITE',
    'INF_POS',
    'INF_NEG',
    'NAN'
);


--
-- Name: trialstate; Type: TYPE; Schema: public; Owner: -
--

CREATE TYPE public.trialstate AS ENUM (
    'RUNNING',
    'COMPLETE',
    'PRUNED',
    'FAIL',
    'WAITING'
);


--
-- Name: trialvaluetype; Type: TYPE; Schema: public; Owner: -
--

CREATE TYPE public.trialvaluetype AS ENUM (
    'FINITE',
    'INF_POS',
    'INF_NEG'
);


SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: artifacts; Type: TABLE; Schema: hpo; Owner: -
--

CREATE TABLE hpo.artifacts (
    artifact_id text NOT NULL,
    part integer NOT NULL,
    body bytea NOT NULL
);


--
-- Name: divergences; Type: TABLE; Schema: hpo; Owner: -
--

CREATE TABLE hpo.divergences (
    study_uid uuid NOT NULL,
    trial_number integer NOT NULL,
    ticket integer NOT NULL,
    run_uid uuid NOT NULL,
    reason text NOT NULL,
    detail text NOT NULL,
    "precision" text NOT NULL,
    term text,
    parameter text,
    operation text,
    evidence jsonb NOT NULL,
    artifact_id text,
    at timestamp with time zone DEFAULT now()
);


--
-- Name: environments; Type: TABLE; Schema: hpo; Owner: -
--

CREATE TABLE hpo.environments (
    worker text NOT NULL,
    study_uid uuid NOT NULL,
    details jsonb NOT NULL,
    at timestamp with time zone DEFAULT now()
);


--
-- Name: leases; Type: TABLE; Schema: hpo; Owner: -
--

CREATE TABLE hpo.leases (
    run_uid uuid NOT NULL,
    study_uid uuid NOT NULL,
    ticket integer NOT NULL,
    attempt integer NOT NULL,
    worker text NOT NULL,
    host text NOT NULL,
    process text NOT NULL,
    slot text NOT NULL,
    taken_at timestamp with time zone DEFAULT now(),
    beat_at timestamp with time zone DEFAULT now(),
    epoch integer,
    epochs integer,
    step integer,
    steps integer,
    value double precision
);


--
-- Name: metrics; Type: TABLE; Schema: hpo; Owner: -
--

CREATE TABLE hpo.metrics (
    run_uid uuid NOT NULL,
    epoch integer NOT NULL,
    study_uid uuid NOT NULL,
    ticket integer NOT NULL,
    step integer NOT NULL,
    "values" jsonb NOT NULL,
    at timestamp with time zone DEFAULT now()
);


--
-- Name: predictions; Type: TABLE; Schema: hpo; Owner: -
--

CREATE TABLE hpo.predictions (
    study_uid uuid NOT NULL,
    trial_number integer NOT NULL,
    step integer NOT NULL,
    sample integer NOT NULL,
    epoch integer NOT NULL,
    run_uid uuid NOT NULL,
    kind text NOT NULL,
    input json,
    target json,
    prediction json,
    score double precision,
    error text,
    latency_s double precision NOT NULL,
    at timestamp with time zone DEFAULT now()
);


--
-- Name: schema_version; Type: TABLE; Schema: hpo; Owner: -
--

CREATE TABLE hpo.schema_version (
    version integer NOT NULL
);


--
-- Name: schema_version_version_seq; Type: SEQUENCE; Schema: hpo; Owner: -
--

CREATE SEQUENCE hpo.schema_version_version_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: schema_version_version_seq; Type: SEQUENCE OWNED BY; Schema: hpo; Owner: -
--

ALTER SEQUENCE hpo.schema_version_version_seq OWNED BY hpo.schema_version.version;


--
-- Name: tickets; Type: TABLE; Schema: hpo; Owner: -
--

CREATE TABLE hpo.tickets (
    study_uid uuid NOT NULL,
    ticket integer NOT NULL,
    state text DEFAULT 'open'::text NOT NULL,
    trial_number integer,
    attempt integer DEFAULT 0 NOT NULL,
    losses integer DEFAULT 0 NOT NULL,
    rerun_of integer,
    params jsonb,
    CONSTRAINT tickets_state_check CHECK ((state = ANY (ARRAY['open'::text, 'leased'::text, 'complete'::text, 'pruned'::text, 'failed'::text])))
);


--
-- Name: alembic_version; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.alembic_version (
    version_num character varying(32) NOT NULL
);


--
-- Name: studies; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.studies (
    study_id integer NOT NULL,
    study_name character varying(512) NOT NULL
);


--
-- Name: studies_study_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.studies_study_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: studies_study_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -
--

ALTER SEQUENCE public.studies_study_id_seq OWNED BY public.studies.study_id;


--
-- Name: study_directions; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.study_directions (
    study_direction_id integer NOT NULL,
    direction public.studydirection NOT NULL,
    study_id integer NOT NULL,
    objective integer NOT NULL
);


--
-- Name: study_directions_study_direction_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.study_directions_study_direction_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: study_directions_study_direction_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -
--

ALTER SEQUENCE public.study_directions_study_direction_id_seq OWNED BY public.study_directions.study_direction_id;


--
-- Name: study_system_attributes; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.study_system_attributes (
    study_system_attribute_id integer NOT NULL,
    study_id integer,
    key character varying(512),
    value_json text
);


--
-- Name: study_system_attributes_study_system_attribute_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.study_system_attributes_study_system_attribute_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: study_system_attributes_study_system_attribute_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -
--

ALTER SEQUENCE public.study_system_attributes_study_system_attribute_id_seq OWNED BY public.study_system_attributes.study_system_attribute_id;


--
-- Name: study_user_attributes; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.study_user_attributes (
    study_user_attribute_id integer NOT NULL,
    study_id integer,
    key character varying(512),
    value_json text
);


--
-- Name: study_user_attributes_study_user_attribute_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.study_user_attributes_study_user_attribute_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: study_user_attributes_study_user_attribute_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -
--

ALTER SEQUENCE public.study_user_attributes_study_user_attribute_id_seq OWNED BY public.study_user_attributes.study_user_attribute_id;


--
-- Name: trial_heartbeats; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.trial_heartbeats (
    trial_heartbeat_id integer NOT NULL,
    trial_id integer NOT NULL,
    heartbeat timestamp without time zone NOT NULL
);


--
-- Name: trial_heartbeats_trial_heartbeat_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.trial_heartbeats_trial_heartbeat_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: trial_heartbeats_trial_heartbeat_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -
--

ALTER SEQUENCE public.trial_heartbeats_trial_heartbeat_id_seq OWNED BY public.trial_heartbeats.trial_heartbeat_id;


--
-- Name: trial_intermediate_values; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.trial_intermediate_values (
    trial_intermediate_value_id integer NOT NULL,
    trial_id integer NOT NULL,
    step integer NOT NULL,
    intermediate_value double precision,
    intermediate_value_type public.trialintermediatevaluetype NOT NULL
);


--
-- Name: trial_intermediate_values_trial_intermediate_value_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.trial_intermediate_values_trial_intermediate_value_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: trial_intermediate_values_trial_intermediate_value_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -
--

ALTER SEQUENCE public.trial_intermediate_values_trial_intermediate_value_id_seq OWNED BY public.trial_intermediate_values.trial_intermediate_value_id;


--
-- Name: trial_params; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.trial_params (
    param_id integer NOT NULL,
    trial_id integer,
    param_name character varying(512),
    param_value double precision,
    distribution_json text
);


--
-- Name: trial_params_param_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.trial_params_param_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: trial_params_param_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -
--

ALTER SEQUENCE public.trial_params_param_id_seq OWNED BY public.trial_params.param_id;


--
-- Name: trial_system_attributes; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.trial_system_attributes (
    trial_system_attribute_id integer NOT NULL,
    trial_id integer,
    key character varying(512),
    value_json text
);


--
-- Name: trial_system_attributes_trial_system_attribute_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.trial_system_attributes_trial_system_attribute_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: trial_system_attributes_trial_system_attribute_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -
--

ALTER SEQUENCE public.trial_system_attributes_trial_system_attribute_id_seq OWNED BY public.trial_system_attributes.trial_system_attribute_id;


--
-- Name: trial_user_attributes; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.trial_user_attributes (
    trial_user_attribute_id integer NOT NULL,
    trial_id integer,
    key character varying(512),
    value_json text
);


--
-- Name: trial_user_attributes_trial_user_attribute_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.trial_user_attributes_trial_user_attribute_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: trial_user_attributes_trial_user_attribute_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -
--

ALTER SEQUENCE public.trial_user_attributes_trial_user_attribute_id_seq OWNED BY public.trial_user_attributes.trial_user_attribute_id;


--
-- Name: trial_values; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.trial_values (
    trial_value_id integer NOT NULL,
    trial_id integer NOT NULL,
    objective integer NOT NULL,
    value double precision,
    value_type public.trialvaluetype NOT NULL
);


--
-- Name: trial_values_trial_value_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.trial_values_trial_value_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: trial_values_trial_value_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -
--

ALTER SEQUENCE public.trial_values_trial_value_id_seq OWNED BY public.trial_values.trial_value_id;


--
-- Name: trials; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.trials (
    trial_id integer NOT NULL,
    number integer,
    study_id integer,
    state public.trialstate NOT NULL,
    datetime_start timestamp without time zone,
    datetime_complete timestamp without time zone
);


--
-- Name: trials_trial_id_seq; Type: SEQUENCE; Schema: public; Owner: -
--

CREATE SEQUENCE public.trials_trial_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


--
-- Name: trials_trial_id_seq; Type: SEQUENCE OWNED BY; Schema: public; Owner: -
--

ALTER SEQUENCE public.trials_trial_id_seq OWNED BY public.trials.trial_id;


--
-- Name: version_info; Type: TABLE; Schema: public; Owner: -
--

CREATE TABLE public.version_info (
    version_info_id integer NOT NULL,
    schema_version integer,
    library_version character varying(256),
    CONSTRAINT version_info_version_info_id_check CHECK ((version_info_id = 1))
);


--
-- Name: schema_version version; Type: DEFAULT; Schema: hpo; Owner: -
--

ALTER TABLE ONLY hpo.schema_version ALTER COLUMN version SET DEFAULT nextval('hpo.schema_version_version_seq'::regclass);


--
-- Name: studies study_id; Type: DEFAULT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.studies ALTER COLUMN study_id SET DEFAULT nextval('public.studies_study_id_seq'::regclass);


--
-- Name: study_directions study_direction_id; Type: DEFAULT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.study_directions ALTER COLUMN study_direction_id SET DEFAULT nextval('public.study_directions_study_direction_id_seq'::regclass);


--
-- Name: study_system_attributes study_system_attribute_id; Type: DEFAULT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.study_system_attributes ALTER COLUMN study_system_attribute_id SET DEFAULT nextval('public.study_system_attributes_study_system_attribute_id_seq'::regclass);


--
-- Name: study_user_attributes study_user_attribute_id; Type: DEFAULT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.study_user_attributes ALTER COLUMN study_user_attribute_id SET DEFAULT nextval('public.study_user_attributes_study_user_attribute_id_seq'::regclass);


--
-- Name: trial_heartbeats trial_heartbeat_id; Type: DEFAULT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.trial_heartbeats ALTER COLUMN trial_heartbeat_id SET DEFAULT nextval('public.trial_heartbeats_trial_heartbeat_id_seq'::regclass);


--
-- Name: trial_intermediate_values trial_intermediate_value_id; Type: DEFAULT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.trial_intermediate_values ALTER COLUMN trial_intermediate_value_id SET DEFAULT nextval('public.trial_intermediate_values_trial_intermediate_value_id_seq'::regclass);


--
-- Name: trial_params param_id; Type: DEFAULT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.trial_params ALTER COLUMN param_id SET DEFAULT nextval('public.trial_params_param_id_seq'::regclass);


--
-- Name: trial_system_attributes trial_system_attribute_id; Type: DEFAULT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.trial_system_attributes ALTER COLUMN trial_system_attribute_id SET DEFAULT nextval('public.trial_system_attributes_trial_system_attribute_id_seq'::regclass);


--
-- Name: trial_user_attributes trial_user_attribute_id; Type: DEFAULT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.trial_user_attributes ALTER COLUMN trial_user_attribute_id SET DEFAULT nextval('public.trial_user_attributes_trial_user_attribute_id_seq'::regclass);


--
-- Name: trial_values trial_value_id; Type: DEFAULT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.trial_values ALTER COLUMN trial_value_id SET DEFAULT nextval('public.trial_values_trial_value_id_seq'::regclass);


--
-- Name: trials trial_id; Type: DEFAULT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.trials ALTER COLUMN trial_id SET DEFAULT nextval('public.trials_trial_id_seq'::regclass);


--
-- Data for Name: artifacts; Type: TABLE DATA; Schema: hpo; Owner: -
--



--
-- Data for Name: divergences; Type: TABLE DATA; Schema: hpo; Owner: -
--



--
-- Data for Name: environments; Type: TABLE DATA; Schema: hpo; Owner: -
--

INSERT INTO hpo.environments VALUES ('vm/cpu:0', 'db8dc856-9b9e-4301-95d4-3195e123348c', '{"cpus": 2, "host": "vm", "device": "cpu", "python": "3.11.7", "threads": 1, "packages": {"numpy": "2.4.6", "torch": "2.13.0+cpu", "optuna": "5.0.0", "sqlalchemy": "2.1.9", "psycopg2-binary": "2.9.13", "optuna-dashboard": "0.21.0"}, "platform": "Linux-6.18.44-fc-v595-x86_64-with-glibc2.36"}', '2026-11-30 04:07:04.42398+00');


--
-- Data for Name: leases; Type: TABLE DATA; Schema: hpo; Owner: -
--



--
-- Data for Name: metrics; Type: TABLE DATA; Schema: hpo; Owner: -
--

INSERT INTO hpo.metrics VALUES ('7267e411-2e98-47bc-9d44-c4e1156d02a6', 0, 'db8dc856-9b9e-4301-95d4-3195e123348c', 1, 0, '{"J_db": -4.433162593121437, "beta": 0.0, "loss": "nan", "nmse": 0.3675534427165985, "scale": 1.0, "spikes": 0, "epsilon": 0.2285441905260086, "skipped": 0, "grad_norm.head": 0.0, "validation_loss": 0.6340738534927368, "grad_norm.backbone": 0.0}', '2026-11-30 04:07:07.161124+00');
INSERT INTO hpo.metrics VALUES ('7267e411-2e98-47bc-9d44-c4e1156d02a6', 1, 'db8dc856-9b9e-4301-95d4-3195e123348c', 1, 5, '{"J_db": -4.525688185910909, "beta": 0.0, "loss": 0.6356889724731445, "nmse": 0.36326563358306885, "scale": 1.0, "spikes": 0, "epsilon": 0.22372661530971527, "skipped": 0, "loss.contrast": 0.24223508834838867, "loss.subspace": 0.20809309482574462, "grad_norm.head": 0.5175529718399048, "loss.covariance": 0.32746000289916993, "loss.likelihood": 0.8556243896484375, "validation_loss": 0.6176083832979202, "grad_norm.backbone": 0.07494063675403595}', '2026-11-30 04:07:07.413507+00');
INSERT INTO hpo.metrics VALUES ('7267e411-2e98-47bc-9d44-c4e1156d02a6', 2, 'db8dc856-9b9e-4301-95d4-3195e123348c', 1, 10, '{"J_db": -4.732584159024741, "beta": 0.0, "loss": 0.5847212791442871, "nmse": 0.3465370833873749, "scale": 1.0, "spikes": 0, "epsilon": 0.21331827342510223, "skipped": 0, "loss.contrast": 0.22907161712646484, "loss.subspace": 0.17255474328994752, "grad_norm.head": 0.4168087840080261, "loss.covariance": 0.28371989727020264, "loss.likelihood": 0.8610968589782715, "validation_loss": 0.5927913933992386, "grad_norm.backbone": 0.07094568014144897}', '2026-11-30 04:07:07.723524+00');
INSERT INTO hpo.metrics VALUES ('7267e411-2e98-47bc-9d44-c4e1156d02a6', 3, 'db8dc856-9b9e-4301-95d4-3195e123348c', 1, 15, '{"J_db": -4.8996044962854235, "beta": 0.0, "loss": 0.6083667755126954, "nmse": 0.3222106099128723, "scale": 1.0, "spikes": 0, "epsilon": 0.20527023077011108, "skipped": 0, "loss.contrast": 0.2357851266860962, "loss.subspace": 0.19959430694580077, "grad_norm.head": 0.4220890998840332, "loss.covariance": 0.2810695648193359, "loss.likelihood": 0.8457202911376953, "validation_loss": 0.5721480920910835, "grad_norm.backbone": 0.07870645821094513}', '2026-11-30 04:07:07.990941+00');
INSERT INTO hpo.metrics VALUES ('7267e411-2e98-47bc-9d44-c4e1156d02a6', 4, 'db8dc856-9b9e-4301-95d4-3195e123348c', 1, 20, '{"J_db": -4.913059756689434, "beta": 0.05, "loss": 0.5617639541625976, "nmse": 0.30741918087005615, "scale": 1.0, "spikes": 0, "epsilon": 0.20463523268699646, "skipped": 0, "loss.contrast": 0.22050919532775878, "loss.subspace": 0.18639864921569824, "grad_norm.head": 0.2918369174003601, "loss.covariance": 0.2654709815979004, "loss.likelihood": 0.7652375221252441, "validation_loss": 0.5655208453536034, "grad_norm.backbone": 0.05732592195272446}', '2026-11-30 04:07:08.212907+00');
INSERT INTO hpo.metrics VALUES ('7267e411-2e98-47bc-9d44-c4e1156d02a6', 5, 'db8dc856-9b9e-4301-95d4-3195e123348c', 1, 25, '{"J_db": -4.793274903139368, "beta": 0.05, "loss": 0.5588647842407226, "nmse": 0.30700528621673584, "scale": 1.0, "spikes": 0, "epsilon": 0.21035796403884888, "skipped": 0, "loss.contrast": 0.22010960578918456, "loss.subspace": 0.1894487738609314, "grad_norm.head": 0.168148934841156, "loss.covariance": 0.2485649824142456, "loss.likelihood": 0.7627121448516846, "validation_loss": 0.5740442797541618, "grad_norm.backbone": 0.029775705188512802}', '2026-11-30 04:07:08.452946+00');
INSERT INTO hpo.metrics VALUES ('7267e411-2e98-47bc-9d44-c4e1156d02a6', 6, 'db8dc856-9b9e-4301-95d4-3195e123348c', 1, 30, '{"J_db": -4.818612779083769, "beta": 0.05, "loss": 0.5445176124572754, "nmse": 0.305892676115036, "scale": 1.0, "spikes": 0, "epsilon": 0.20913423597812653, "skipped": 0, "loss.contrast": 0.21340835094451904, "loss.subspace": 0.17737698554992676, "grad_norm.head": 0.17468909919261932, "loss.covariance": 0.2379615306854248, "loss.likelihood": 0.772432279586792, "validation_loss": 0.5744899809360504, "grad_norm.backbone": 0.029560651630163193}', '2026-11-30 04:07:08.68828+00');
INSERT INTO hpo.metrics VALUES ('7267e411-2e98-47bc-9d44-c4e1156d02a6', 7, 'db8dc856-9b9e-4301-95d4-3195e123348c', 1, 35, '{"J_db": -4.753650800378089, "beta": 0.05, "loss": 0.569389820098877, "nmse": 0.3114454746246338, "scale": 1.0, "spikes": 0, "epsilon": 0.21228599548339844, "skipped": 0, "loss.contrast": 0.22226271629333497, "loss.subspace": 0.1905989170074463, "grad_norm.head": 0.20900878310203552, "loss.covariance": 0.25467686653137206, "loss.likelihood": 0.7856966018676758, "validation_loss": 0.579819954931736, "grad_norm.backbone": 0.0352296307682991}', '2026-11-30 04:07:08.998352+00');
INSERT INTO hpo.metrics VALUES ('7267e411-2e98-47bc-9d44-c4e1156d02a6', 8, 'db8dc856-9b9e-4301-95d4-3195e123348c', 1, 40, '{"J_db": -4.766991318922125, "beta": 0.05, "loss": 0.5545547485351563, "nmse": 0.31442782282829285, "scale": 1.0, "spikes": 0, "epsilon": 0.21163490414619446, "skipped": 0, "loss.contrast": 0.22647325992584227, "loss.subspace": 0.1908615231513977, "grad_norm.head": 0.16047224402427673, "loss.covariance": 0.2541367053985596, "loss.likelihood": 0.731700849533081, "validation_loss": 0.5791961848735809, "grad_norm.backbone": 0.030108939856290817}', '2026-11-30 04:07:09.268086+00');
INSERT INTO hpo.metrics VALUES ('7267e411-2e98-47bc-9d44-c4e1156d02a6', 9, 'db8dc856-9b9e-4301-95d4-3195e123348c', 1, 45, '{"J_db": -4.748406610601901, "beta": 0.05, "loss": 0.5749676704406739, "nmse": 0.31228476762771606, "scale": 1.0, "spikes": 0, "epsilon": 0.21254251897335052, "skipped": 0, "loss.contrast": 0.22416090965270996, "loss.subspace": 0.19021823406219482, "grad_norm.head": 0.17745451629161835, "loss.covariance": 0.2512596607208252, "loss.likelihood": 0.8070774078369141, "validation_loss": 0.5802960842847824, "grad_norm.backbone": 0.03448376804590225}', '2026-11-30 04:07:09.543105+00');
INSERT INTO hpo.metrics VALUES ('7267e411-2e98-47bc-9d44-c4e1156d02a6', 10, 'db8dc856-9b9e-4301-95d4-3195e123348c', 1, 50, '{"J_db": -4.763801537791249, "beta": 0.05, "loss": 0.5922702789306641, "nmse": 0.30940085649490356, "scale": 1.0, "spikes": 0, "epsilon": 0.21179041266441345, "skipped": 0, "loss.contrast": 0.23341469764709472, "loss.subspace": 0.2051246404647827, "grad_norm.head": 0.19295531511306763, "loss.covariance": 0.25765514373779297, "loss.likelihood": 0.7994155406951904, "validation_loss": 0.5811329409480095, "grad_norm.backbone": 0.03591543436050415}', '2026-11-30 04:07:09.88747+00');
INSERT INTO hpo.metrics VALUES ('7267e411-2e98-47bc-9d44-c4e1156d02a6', 11, 'db8dc856-9b9e-4301-95d4-3195e123348c', 1, 55, '{"J_db": -4.742333938644147, "beta": 0.05, "loss": 0.5583384037017822, "nmse": 0.3110164701938629, "scale": 1.0, "spikes": 0, "epsilon": 0.21283990144729614, "skipped": 0, "loss.contrast": 0.21545112133026123, "loss.subspace": 0.18703293800354004, "grad_norm.head": 0.13563784956932068, "loss.covariance": 0.23422398567199706, "loss.likelihood": 0.788009786605835, "validation_loss": 0.5832500457763672, "grad_norm.backbone": 0.032141707837581635}', '2026-11-30 04:07:10.20725+00');
INSERT INTO hpo.metrics VALUES ('7267e411-2e98-47bc-9d44-c4e1156d02a6', 12, 'db8dc856-9b9e-4301-95d4-3195e123348c', 1, 60, '{"J_db": -4.706014050596335, "beta": 0.05, "loss": 0.6112004280090332, "nmse": 0.3193627595901489, "scale": 1.0, "spikes": 0, "epsilon": 0.21462734043598175, "skipped": 0, "loss.contrast": 0.2355131149291992, "loss.subspace": 0.20791471004486084, "grad_norm.head": 0.18435843288898468, "loss.covariance": 0.2764273166656494, "loss.likelihood": 0.8323452949523926, "validation_loss": 0.5861813277006149, "grad_norm.backbone": 0.040533848106861115}', '2026-11-30 04:07:10.504194+00');
INSERT INTO hpo.metrics VALUES ('7267e411-2e98-47bc-9d44-c4e1156d02a6', 13, 'db8dc856-9b9e-4301-95d4-3195e123348c', 1, 65, '{"J_db": -4.681957200629856, "beta": 0.05, "loss": 0.594988203048706, "nmse": 0.3264596164226532, "scale": 1.0, "spikes": 0, "epsilon": 0.21581953763961792, "skipped": 0, "loss.contrast": 0.2323911666870117, "loss.subspace": 0.21014690399169922, "grad_norm.head": 0.14961454272270203, "loss.covariance": 0.26276440620422364, "loss.likelihood": 0.7876485824584961, "validation_loss": 0.5886748880147934, "grad_norm.backbone": 0.04131658002734184}', '2026-11-30 04:07:10.736636+00');
INSERT INTO hpo.metrics VALUES ('7267e411-2e98-47bc-9d44-c4e1156d02a6', 14, 'db8dc856-9b9e-4301-95d4-3195e123348c', 1, 70, '{"J_db": -4.664705900439494, "beta": 0.05, "loss": 0.5715304374694824, "nmse": 0.33212029933929443, "scale": 1.0, "spikes": 0, "epsilon": 0.21667850017547607, "skipped": 0, "loss.contrast": 0.23238792419433593, "loss.subspace": 0.19548288583755494, "grad_norm.head": 0.15374794602394104, "loss.covariance": 0.25724291801452637, "loss.likelihood": 0.7638607978820801, "validation_loss": 0.5913149192929268, "grad_norm.backbone": 0.038517821580171585}', '2026-11-30 04:07:10.992008+00');
INSERT INTO hpo.metrics VALUES ('7267e411-2e98-47bc-9d44-c4e1156d02a6', 16, 'db8dc856-9b9e-4301-95d4-3195e123348c', 1, 80, '{"J_db": -4.58336052269688, "beta": 0.05, "loss": 0.5699521064758301, "nmse": 0.3362903296947479, "scale": 1.0, "spikes": 0, "epsilon": 0.22077526152133942, "skipped": 0, "loss.contrast": 0.23106038570404053, "loss.subspace": 0.199403715133667, "grad_norm.head": 0.21080458164215088, "loss.covariance": 0.259633207321167, "loss.likelihood": 0.7444674015045166, "validation_loss": 0.6032477170228958, "grad_norm.backbone": 0.07269854098558426}', '2026-11-30 04:07:11.554716+00');
INSERT INTO hpo.metrics VALUES ('7267e411-2e98-47bc-9d44-c4e1156d02a6', 21, 'db8dc856-9b9e-4301-95d4-3195e123348c', 1, 105, '{"J_db": -4.456517055151956, "beta": 0.05, "loss": 0.6071138381958008, "nmse": 0.34642478823661804, "scale": 1.0, "spikes": 0, "epsilon": 0.22731848061084747, "skipped": 0, "loss.contrast": 0.2355855941772461, "loss.subspace": 0.21934406757354735, "grad_norm.head": 0.2121707648038864, "loss.covariance": 0.26747376918792726, "loss.likelihood": 0.7895066261291503, "validation_loss": 0.6170436441898346, "grad_norm.backbone": 0.07187890261411667}', '2026-11-30 04:07:12.916418+00');
INSERT INTO hpo.metrics VALUES ('7267e411-2e98-47bc-9d44-c4e1156d02a6', 23, 'db8dc856-9b9e-4301-95d4-3195e123348c', 1, 115, '{"J_db": -4.447376956082142, "beta": 0.05, "loss": 0.597109317779541, "nmse": 0.35121989250183105, "scale": 1.0, "spikes": 0, "epsilon": 0.22779738903045654, "skipped": 0, "loss.contrast": 0.23469531536102295, "loss.subspace": 0.20033106803894044, "grad_norm.head": 0.14940999448299408, "loss.covariance": 0.25693798065185547, "loss.likelihood": 0.830961036682129, "validation_loss": 0.6161229535937309, "grad_norm.backbone": 0.05513523891568184}', '2026-11-30 04:07:13.470377+00');
INSERT INTO hpo.metrics VALUES ('7267e411-2e98-47bc-9d44-c4e1156d02a6', 27, 'db8dc856-9b9e-4301-95d4-3195e123348c', 1, 135, '{"J_db": -4.437039688782564, "beta": 0.05, "loss": 0.5947932243347168, "nmse": 0.35124027729034424, "scale": 1.0, "spikes": 0, "epsilon": 0.2283402383327484, "skipped": 0, "loss.contrast": 0.23292744159698486, "loss.subspace": 0.19521689414978027, "grad_norm.head": 0.10251317918300629, "loss.covariance": 0.2501299142837524, "loss.likelihood": 0.8488636970520019, "validation_loss": 0.6172889769077301, "grad_norm.backbone": 0.036602362990379333}', '2026-11-30 04:07:14.57776+00');
INSERT INTO hpo.metrics VALUES ('91e54756-e9fd-4618-877e-282ad5c5776a', 2, 'db8dc856-9b9e-4301-95d4-3195e123348c', 2, 10, '{"J_db": -4.639884870075256, "beta": 0.0, "loss": 0.4087587833404541, "nmse": 0.342525452375412, "scale": 1.0, "spikes": 0, "epsilon": 0.2179204374551773, "skipped": 0, "loss.contrast": 0.2210977554321289, "loss.subspace": 0.18351351022720336, "grad_norm.head": 0.32127225399017334, "loss.covariance": 0.283268404006958, "loss.likelihood": 0.7872869491577148, "validation_loss": 0.4560905285179615, "grad_norm.backbone": 0.04245438054203987}', '2026-11-30 04:07:16.408213+00');
INSERT INTO hpo.metrics VALUES ('91e54756-e9fd-4618-877e-282ad5c5776a', 5, 'db8dc856-9b9e-4301-95d4-3195e123348c', 2, 25, '{"J_db": -4.7236926480528965, "beta": 0.0, "loss": 0.4184562206268311, "nmse": 0.33458277583122253, "scale": 1.0, "spikes": 0, "epsilon": 0.21375542879104614, "skipped": 0, "loss.contrast": 0.21860337257385254, "loss.subspace": 0.19275664091110228, "grad_norm.head": 0.32002973556518555, "loss.covariance": 0.2766439914703369, "loss.likelihood": 0.8671195030212402, "validation_loss": 0.44900163263082504, "grad_norm.backbone": 0.04429211840033531}', '2026-11-30 04:07:17.066331+00');
INSERT INTO hpo.metrics VALUES ('91e54756-e9fd-4618-877e-282ad5c5776a', 7, 'db8dc856-9b9e-4301-95d4-3195e123348c', 2, 35, '{"J_db": -4.766860677023456, "beta": 0.0, "loss": 0.431490421295166, "nmse": 0.3299066126346588, "scale": 1.0, "spikes": 0, "epsilon": 0.21164126694202423, "skipped": 0, "loss.contrast": 0.22876455783843994, "loss.subspace": 0.1989804744720459, "grad_norm.head": 0.4598197937011719, "loss.covariance": 0.28133866786956785, "loss.likelihood": 0.8802793502807618, "validation_loss": 0.444946963340044, "grad_norm.backbone": 0.06671669334173203}', '2026-11-30 04:07:17.595594+00');
INSERT INTO hpo.metrics VALUES ('91e54756-e9fd-4618-877e-282ad5c5776a', 9, 'db8dc856-9b9e-4301-95d4-3195e123348c', 2, 45, '{"J_db": -4.798353143817841, "beta": 0.0, "loss": 0.4047417640686035, "nmse": 0.3257169723510742, "scale": 1.0, "spikes": 0, "epsilon": 0.21011213958263397, "skipped": 0, "loss.contrast": 0.22375705242156982, "loss.subspace": 0.17728666067123414, "grad_norm.head": 0.3928943872451782, "loss.covariance": 0.28012452125549314, "loss.likelihood": 0.8290733337402344, "validation_loss": 0.441684003919363, "grad_norm.backbone": 0.05494465306401253}', '2026-11-30 04:07:18.109571+00');
INSERT INTO hpo.metrics VALUES ('91e54756-e9fd-4618-877e-282ad5c5776a', 10, 'db8dc856-9b9e-4301-95d4-3195e123348c', 2, 50, '{"J_db": -4.819903424425868, "beta": 0.0, "loss": 0.3937809705734253, "nmse": 0.3236587941646576, "scale": 1.0, "spikes": 0, "epsilon": 0.20907211303710938, "skipped": 0, "loss.contrast": 0.21599819660186767, "loss.subspace": 0.17695350646972657, "grad_norm.head": 0.2899503707885742, "loss.covariance": 0.25501654148101804, "loss.likelihood": 0.8417236328125, "validation_loss": 0.4397725611925125, "grad_norm.backbone": 0.03976957127451897}', '2026-11-30 04:07:18.385939+00');
INSERT INTO hpo.metrics VALUES ('91e54756-e9fd-4618-877e-282ad5c5776a', 12, 'db8dc856-9b9e-4301-95d4-3195e123348c', 2, 60, '{"J_db": -4.86491813317754, "beta": 0.0, "loss": 0.3905816078186035, "nmse": 0.31991907954216003, "scale": 1.0, "spikes": 0, "epsilon": 0.20691625773906708, "skipped": 0, "loss.contrast": 0.21451904773712158, "loss.subspace": 0.17612509727478026, "grad_norm.head": 0.28071001172065735, "loss.covariance": 0.2575348377227783, "loss.likelihood": 0.7882195472717285, "validation_loss": 0.4358551613986492, "grad_norm.backbone": 0.0397387333214283}', '2026-11-30 04:07:18.869819+00');
INSERT INTO hpo.metrics VALUES ('7267e411-2e98-47bc-9d44-c4e1156d02a6', 15, 'db8dc856-9b9e-4301-95d4-3195e123348c', 1, 75, '{"J_db": -4.641560621029131, "beta": 0.05, "loss": 0.584963321685791, "nmse": 0.3283415138721466, "scale": 1.0, "spikes": 0, "epsilon": 0.21783633530139923, "skipped": 0, "loss.contrast": 0.23894863128662108, "loss.subspace": 0.20071794986724853, "grad_norm.head": 0.1469525694847107, "loss.covariance": 0.262680983543396, "loss.likelihood": 0.7791882514953613, "validation_loss": 0.5972118824720383, "grad_norm.backbone": 0.0405745692551136}', '2026-11-30 04:07:11.280001+00');
INSERT INTO hpo.metrics VALUES ('7267e411-2e98-47bc-9d44-c4e1156d02a6', 17, 'db8dc856-9b9e-4301-95d4-3195e123348c', 1, 85, '{"J_db": -4.520765371592596, "beta": 0.05, "loss": 0.5849830627441406, "nmse": 0.34120672941207886, "scale": 1.0, "spikes": 0, "epsilon": 0.2239803522825241, "skipped": 0, "loss.contrast": 0.23044755458831787, "loss.subspace": 0.18733856678009034, "grad_norm.head": 0.16133587062358856, "loss.covariance": 0.25448524951934814, "loss.likelihood": 0.8405487060546875, "validation_loss": 0.6103820502758026, "grad_norm.backbone": 0.047923341393470764}', '2026-11-30 04:07:11.806397+00');
INSERT INTO hpo.metrics VALUES ('7267e411-2e98-47bc-9d44-c4e1156d02a6', 18, 'db8dc856-9b9e-4301-95d4-3195e123348c', 1, 90, '{"J_db": -4.492031630247084, "beta": 0.05, "loss": 0.6110299587249756, "nmse": 0.3461085259914398, "scale": 1.0, "spikes": 0, "epsilon": 0.22546716034412384, "skipped": 0, "loss.contrast": 0.23571698665618895, "loss.subspace": 0.21139469146728515, "grad_norm.head": 0.12519387900829315, "loss.covariance": 0.2562223434448242, "loss.likelihood": 0.8401782035827636, "validation_loss": 0.6124035641551018, "grad_norm.backbone": 0.04244561865925789}', '2026-11-30 04:07:12.110659+00');
INSERT INTO hpo.metrics VALUES ('7267e411-2e98-47bc-9d44-c4e1156d02a6', 19, 'db8dc856-9b9e-4301-95d4-3195e123348c', 1, 95, '{"J_db": -4.4819939730572464, "beta": 0.05, "loss": 0.5839889526367188, "nmse": 0.34574151039123535, "scale": 1.0, "spikes": 0, "epsilon": 0.22598886489868164, "skipped": 0, "loss.contrast": 0.22417986392974854, "loss.subspace": 0.1956399202346802, "grad_norm.head": 0.1467236578464508, "loss.covariance": 0.24516355991363525, "loss.likelihood": 0.8251532554626465, "validation_loss": 0.614410825073719, "grad_norm.backbone": 0.05865758657455444}', '2026-11-30 04:07:12.371358+00');
INSERT INTO hpo.metrics VALUES ('7267e411-2e98-47bc-9d44-c4e1156d02a6', 20, 'db8dc856-9b9e-4301-95d4-3195e123348c', 1, 100, '{"J_db": -4.4681799619563956, "beta": 0.05, "loss": 0.6059146404266358, "nmse": 0.3438449501991272, "scale": 1.0, "spikes": 0, "epsilon": 0.22670884430408478, "skipped": 0, "loss.contrast": 0.23198182582855226, "loss.subspace": 0.20795073509216308, "grad_norm.head": 0.20188918709754944, "loss.covariance": 0.2611216068267822, "loss.likelihood": 0.8334428787231445, "validation_loss": 0.6173926070332527, "grad_norm.backbone": 0.08037623763084412}', '2026-11-30 04:07:12.629282+00');
INSERT INTO hpo.metrics VALUES ('7267e411-2e98-47bc-9d44-c4e1156d02a6', 22, 'db8dc856-9b9e-4301-95d4-3195e123348c', 1, 110, '{"J_db": -4.451971237035945, "beta": 0.05, "loss": 0.574794340133667, "nmse": 0.34854573011398315, "scale": 1.0, "spikes": 0, "epsilon": 0.22755655646324158, "skipped": 0, "loss.contrast": 0.2257467031478882, "loss.subspace": 0.19045920372009278, "grad_norm.head": 0.17038151621818542, "loss.covariance": 0.25213189125061036, "loss.likelihood": 0.8032383918762207, "validation_loss": 0.6166101917624474, "grad_norm.backbone": 0.05846364423632622}', '2026-11-30 04:07:13.200758+00');
INSERT INTO hpo.metrics VALUES ('7267e411-2e98-47bc-9d44-c4e1156d02a6', 24, 'db8dc856-9b9e-4301-95d4-3195e123348c', 1, 120, '{"J_db": -4.4450332736994955, "beta": 0.05, "loss": 0.5702250957489013, "nmse": 0.3498476445674896, "scale": 1.0, "spikes": 0, "epsilon": 0.22792033851146698, "skipped": 0, "loss.contrast": 0.22357017993927003, "loss.subspace": 0.19071660041809083, "grad_norm.head": 0.15956783294677734, "loss.covariance": 0.24667160511016845, "loss.likelihood": 0.7947865009307862, "validation_loss": 0.6169371157884598, "grad_norm.backbone": 0.061368178576231}', '2026-11-30 04:07:13.755349+00');
INSERT INTO hpo.metrics VALUES ('7267e411-2e98-47bc-9d44-c4e1156d02a6', 25, 'db8dc856-9b9e-4301-95d4-3195e123348c', 1, 125, '{"J_db": -4.441559200682757, "beta": 0.05, "loss": 0.6050644874572754, "nmse": 0.34971314668655396, "scale": 1.0, "spikes": 0, "epsilon": 0.22810275852680206, "skipped": 0, "loss.contrast": 0.2390822410583496, "loss.subspace": 0.21084766387939452, "grad_norm.head": 0.12963148951530457, "loss.covariance": 0.26647095680236815, "loss.likelihood": 0.8085027694702148, "validation_loss": 0.6174222156405449, "grad_norm.backbone": 0.050972484052181244}', '2026-11-30 04:07:14.0158+00');
INSERT INTO hpo.metrics VALUES ('7267e411-2e98-47bc-9d44-c4e1156d02a6', 26, 'db8dc856-9b9e-4301-95d4-3195e123348c', 1, 130, '{"J_db": -4.438732989227417, "beta": 0.05, "loss": 0.5831140041351318, "nmse": 0.35080066323280334, "scale": 1.0, "spikes": 0, "epsilon": 0.22825124859809875, "skipped": 0, "loss.contrast": 0.22997739315032958, "loss.subspace": 0.19999346733093262, "grad_norm.head": 0.1497393548488617, "loss.covariance": 0.2488936424255371, "loss.likelihood": 0.7981972217559814, "validation_loss": 0.6172569319605827, "grad_norm.backbone": 0.05259760469198227}', '2026-11-30 04:07:14.298688+00');
INSERT INTO hpo.metrics VALUES ('7267e411-2e98-47bc-9d44-c4e1156d02a6', 28, 'db8dc856-9b9e-4301-95d4-3195e123348c', 1, 140, '{"J_db": -4.436110613984402, "beta": 0.05, "loss": 0.6329922676086426, "nmse": 0.35141241550445557, "scale": 1.0, "spikes": 0, "epsilon": 0.22838911414146423, "skipped": 0, "loss.contrast": 0.23877060413360596, "loss.subspace": 0.21910810470581055, "grad_norm.head": 0.14834636449813843, "loss.covariance": 0.2727299451828003, "loss.likelihood": 0.8681132316589355, "validation_loss": 0.6173394396901131, "grad_norm.backbone": 0.058943022042512894}', '2026-11-30 04:07:14.854793+00');
INSERT INTO hpo.metrics VALUES ('7267e411-2e98-47bc-9d44-c4e1156d02a6', 29, 'db8dc856-9b9e-4301-95d4-3195e123348c', 1, 145, '{"J_db": -4.435686403063297, "beta": 0.05, "loss": 0.5853787422180176, "nmse": 0.35149818658828735, "scale": 1.0, "spikes": 0, "epsilon": 0.22841142117977142, "skipped": 0, "loss.contrast": 0.22959983348846436, "loss.subspace": 0.20060038566589355, "grad_norm.head": 0.15113134682178497, "loss.covariance": 0.2535024881362915, "loss.likelihood": 0.7994922161102295, "validation_loss": 0.6173620149493217, "grad_norm.backbone": 0.0635976642370224}', '2026-11-30 04:07:15.163147+00');
INSERT INTO hpo.metrics VALUES ('7267e411-2e98-47bc-9d44-c4e1156d02a6', 30, 'db8dc856-9b9e-4301-95d4-3195e123348c', 1, 150, '{"J_db": -4.435604029607716, "beta": 0.05, "loss": 0.5910977363586426, "nmse": 0.35152575373649597, "scale": 1.0, "spikes": 0, "epsilon": 0.22841575741767883, "skipped": 0, "loss.contrast": 0.23531432151794435, "loss.subspace": 0.2071293830871582, "grad_norm.head": 0.13511888682842255, "loss.covariance": 0.2609769582748413, "loss.likelihood": 0.7836031913757324, "validation_loss": 0.6173649057745934, "grad_norm.backbone": 0.04976630210876465}', '2026-11-30 04:07:15.373387+00');
INSERT INTO hpo.metrics VALUES ('91e54756-e9fd-4618-877e-282ad5c5776a', 0, 'db8dc856-9b9e-4301-95d4-3195e123348c', 2, 0, '{"J_db": -4.611336477151816, "beta": 0.0, "loss": "nan", "nmse": 0.3454552888870239, "scale": 1.0, "spikes": 0, "epsilon": 0.2193576693534851, "skipped": 0, "grad_norm.head": 0.0, "validation_loss": 0.4585677422583103, "grad_norm.backbone": 0.0}', '2026-11-30 04:07:15.978363+00');
INSERT INTO hpo.metrics VALUES ('91e54756-e9fd-4618-877e-282ad5c5776a', 1, 'db8dc856-9b9e-4301-95d4-3195e123348c', 2, 5, '{"J_db": -4.619362807530263, "beta": 0.0, "loss": 0.4109641075134277, "nmse": 0.3445696532726288, "scale": 1.0, "spikes": 0, "epsilon": 0.21895261108875275, "skipped": 0, "loss.contrast": 0.21826422214508057, "loss.subspace": 0.18321244716644286, "grad_norm.head": 0.3592497706413269, "loss.covariance": 0.28201000690460204, "loss.likelihood": 0.8804054260253906, "validation_loss": 0.45786551386117935, "grad_norm.backbone": 0.04665118455886841}', '2026-11-30 04:07:16.184064+00');
INSERT INTO hpo.metrics VALUES ('91e54756-e9fd-4618-877e-282ad5c5776a', 3, 'db8dc856-9b9e-4301-95d4-3195e123348c', 2, 15, '{"J_db": -4.668734564537024, "beta": 0.0, "loss": 0.4261027336120605, "nmse": 0.3397638201713562, "scale": 1.0, "spikes": 0, "epsilon": 0.21647761762142181, "skipped": 0, "loss.contrast": 0.2249760150909424, "loss.subspace": 0.19327998161315918, "grad_norm.head": 0.3539244830608368, "loss.covariance": 0.29081294536590574, "loss.likelihood": 0.8640091896057129, "validation_loss": 0.4536588191986084, "grad_norm.backbone": 0.04585679620504379}', '2026-11-30 04:07:16.63174+00');
INSERT INTO hpo.metrics VALUES ('91e54756-e9fd-4618-877e-282ad5c5776a', 4, 'db8dc856-9b9e-4301-95d4-3195e123348c', 2, 20, '{"J_db": -4.699966885706688, "beta": 0.0, "loss": 0.42098774909973147, "nmse": 0.33704566955566406, "scale": 1.0, "spikes": 0, "epsilon": 0.21492642164230347, "skipped": 0, "loss.contrast": 0.22896866798400878, "loss.subspace": 0.1861720085144043, "grad_norm.head": 0.3994981050491333, "loss.covariance": 0.29352047443389895, "loss.likelihood": 0.8484161376953125, "validation_loss": 0.45105956122279167, "grad_norm.backbone": 0.05312497541308403}', '2026-11-30 04:07:16.85111+00');
INSERT INTO hpo.metrics VALUES ('91e54756-e9fd-4618-877e-282ad5c5776a', 6, 'db8dc856-9b9e-4301-95d4-3195e123348c', 2, 30, '{"J_db": -4.745029074241803, "beta": 0.0, "loss": 0.44893436431884765, "nmse": 0.3322656750679016, "scale": 1.0, "spikes": 0, "epsilon": 0.21270786225795746, "skipped": 0, "loss.contrast": 0.23408863544464112, "loss.subspace": 0.20602357387542725, "grad_norm.head": 0.31053784489631653, "loss.covariance": 0.31888229846954347, "loss.likelihood": 0.8057666778564453, "validation_loss": 0.44703184440732, "grad_norm.backbone": 0.041430674493312836}', '2026-11-30 04:07:17.345784+00');
INSERT INTO hpo.metrics VALUES ('91e54756-e9fd-4618-877e-282ad5c5776a', 8, 'db8dc856-9b9e-4301-95d4-3195e123348c', 2, 40, '{"J_db": -4.792184037420885, "beta": 0.0, "loss": 0.41039485931396485, "nmse": 0.32754623889923096, "scale": 1.0, "spikes": 0, "epsilon": 0.21041078865528107, "skipped": 0, "loss.contrast": 0.2224827527999878, "loss.subspace": 0.1842297911643982, "grad_norm.head": 0.32636213302612305, "loss.covariance": 0.27452936172485354, "loss.likelihood": 0.8509244918823242, "validation_loss": 0.44273360818624496, "grad_norm.backbone": 0.042069680988788605}', '2026-11-30 04:07:17.857215+00');
INSERT INTO hpo.metrics VALUES ('91e54756-e9fd-4618-877e-282ad5c5776a', 11, 'db8dc856-9b9e-4301-95d4-3195e123348c', 2, 55, '{"J_db": -4.840151631413738, "beta": 0.0, "loss": 0.41085257530212405, "nmse": 0.321768581867218, "scale": 1.0, "spikes": 0, "epsilon": 0.2080996334552765, "skipped": 0, "loss.contrast": 0.22426531314849854, "loss.subspace": 0.1862030029296875, "grad_norm.head": 0.29464173316955566, "loss.covariance": 0.2689391851425171, "loss.likelihood": 0.835902214050293, "validation_loss": 0.43801943957805634, "grad_norm.backbone": 0.0414796881377697}', '2026-11-30 04:07:18.640224+00');


--
-- Data for Name: predictions; Type: TABLE DATA; Schema: hpo; Owner: -
--



--
-- Data for Name: schema_version; Type: TABLE DATA; Schema: hpo; Owner: -
--

INSERT INTO hpo.schema_version VALUES (4);


--
-- Data for Name: tickets; Type: TABLE DATA; Schema: hpo; Owner: -
--

INSERT INTO hpo.tickets VALUES ('db8dc856-9b9e-4301-95d4-3195e123348c', 1, 'complete', 0, 1, 0, NULL, NULL);
INSERT INTO hpo.tickets VALUES ('db8dc856-9b9e-4301-95d4-3195e123348c', 2, 'open', 1, 1, 0, NULL, NULL);


--
-- Data for Name: alembic_version; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.alembic_version VALUES ('v3.2.0.a');


--
-- Data for Name: studies; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.studies VALUES (1, 'begun');


--
-- Data for Name: study_directions; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.study_directions VALUES (1, 'MINIMIZE', 1, 0);


--
-- Data for Name: study_system_attributes; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.study_system_attributes VALUES (1, 1, 'study:metric_names', '["J_db"]');


--
-- Data for Name: study_user_attributes; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.study_user_attributes VALUES (1, 1, 'config', '{"objective": "ris_covariance", "source": "b8c0f04dc8b35962", "metric": "J_db", "direction": "minimize", "size": "unit", "epochs": 30, "space": "wide", "precision": "fp32", "problem_seed": 0, "seed": 0, "sampler": "tpe", "pruner": "none", "on_precision_range": "prune", "options": {"installation": "fixed", "scenes": ""}, "fixed": {"width": 32, "layers": 1}, "ranges": {}, "parameters": {"layers": {"kind": "int", "values": "1"}, "oversampling": {"kind": "float", "values": "0.8 to 1.8"}, "width": {"kind": "choice", "values": "32"}, "lr": {"kind": "float, log", "values": "0.0001 to 0.03"}, "schedule": {"kind": "choice", "values": "constant, linear, cosine"}, "warmup": {"kind": "float", "values": "0.01 to 0.2"}, "batch": {"kind": "choice", "values": "64, 128"}, "w_likelihood": {"kind": "float, log", "values": "0.03 to 3"}, "w_contrast": {"kind": "float, log", "values": "0.03 to 3"}}, "forced": {}, "revision": 0}');
INSERT INTO public.study_user_attributes VALUES (2, 1, 'study_uid', '"db8dc856-9b9e-4301-95d4-3195e123348c"');
INSERT INTO public.study_user_attributes VALUES (3, 1, 'last_run', '{"study_name": "begun", "n_trials": 2, "objective": "ris_covariance", "space": "wide", "size": "unit", "precision": "fp32", "sampler": "tpe", "pruner": "none", "seed": 0, "epochs_per_trial": 30, "on_precision_range": "prune", "set": {"width": 32, "layers": 1}, "range": {}, "installation": "fixed", "scenes": "", "enqueue": [], "force": false, "workers": 1, "workers_per_gpu": 1, "gpus": "all", "timeout": null, "grace": 30.0, "checkpoint_dir": null, "predictions": "off", "predictions_every": "epoch"}');
INSERT INTO public.study_user_attributes VALUES (4, 1, 'references', '{"per-code MUSIC": -4.0266530947895856}');


--
-- Data for Name: trial_heartbeats; Type: TABLE DATA; Schema: public; Owner: -
--



--
-- Data for Name: trial_intermediate_values; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.trial_intermediate_values VALUES (1, 1, 1, -4.525688185910909, 'FINITE');
INSERT INTO public.trial_intermediate_values VALUES (2, 1, 2, -4.732584159024741, 'FINITE');
INSERT INTO public.trial_intermediate_values VALUES (3, 1, 3, -4.8996044962854235, 'FINITE');
INSERT INTO public.trial_intermediate_values VALUES (4, 1, 4, -4.913059756689434, 'FINITE');
INSERT INTO public.trial_intermediate_values VALUES (5, 1, 5, -4.793274903139368, 'FINITE');
INSERT INTO public.trial_intermediate_values VALUES (6, 1, 6, -4.818612779083769, 'FINITE');
INSERT INTO public.trial_intermediate_values VALUES (7, 1, 7, -4.753650800378089, 'FINITE');
INSERT INTO public.trial_intermediate_values VALUES (8, 1, 8, -4.766991318922125, 'FINITE');
INSERT INTO public.trial_intermediate_values VALUES (9, 1, 9, -4.748406610601901, 'FINITE');
INSERT INTO public.trial_intermediate_values VALUES (10, 1, 10, -4.763801537791249, 'FINITE');
INSERT INTO public.trial_intermediate_values VALUES (11, 1, 11, -4.742333938644147, 'FINITE');
INSERT INTO public.trial_intermediate_values VALUES (12, 1, 12, -4.706014050596335, 'FINITE');
INSERT INTO public.trial_intermediate_values VALUES (13, 1, 13, -4.681957200629856, 'FINITE');
INSERT INTO public.trial_intermediate_values VALUES (14, 1, 14, -4.664705900439494, 'FINITE');
INSERT INTO public.trial_intermediate_values VALUES (15, 1, 15, -4.641560621029131, 'FINITE');
INSERT INTO public.trial_intermediate_values VALUES (16, 1, 16, -4.58336052269688, 'FINITE');
INSERT INTO public.trial_intermediate_values VALUES (17, 1, 17, -4.520765371592596, 'FINITE');
INSERT INTO public.trial_intermediate_values VALUES (18, 1, 18, -4.492031630247084, 'FINITE');
INSERT INTO public.trial_intermediate_values VALUES (19, 1, 19, -4.4819939730572464, 'FINITE');
INSERT INTO public.trial_intermediate_values VALUES (20, 1, 20, -4.4681799619563956, 'FINITE');
INSERT INTO public.trial_intermediate_values VALUES (21, 1, 21, -4.456517055151956, 'FINITE');
INSERT INTO public.trial_intermediate_values VALUES (22, 1, 22, -4.451971237035945, 'FINITE');
INSERT INTO public.trial_intermediate_values VALUES (23, 1, 23, -4.447376956082142, 'FINITE');
INSERT INTO public.trial_intermediate_values VALUES (24, 1, 24, -4.4450332736994955, 'FINITE');
INSERT INTO public.trial_intermediate_values VALUES (25, 1, 25, -4.441559200682757, 'FINITE');
INSERT INTO public.trial_intermediate_values VALUES (26, 1, 26, -4.438732989227417, 'FINITE');
INSERT INTO public.trial_intermediate_values VALUES (27, 1, 27, -4.437039688782564, 'FINITE');
INSERT INTO public.trial_intermediate_values VALUES (28, 1, 28, -4.436110613984402, 'FINITE');
INSERT INTO public.trial_intermediate_values VALUES (29, 1, 29, -4.435686403063297, 'FINITE');
INSERT INTO public.trial_intermediate_values VALUES (30, 1, 30, -4.435604029607716, 'FINITE');
INSERT INTO public.trial_intermediate_values VALUES (31, 2, 1, -4.619362807530263, 'FINITE');
INSERT INTO public.trial_intermediate_values VALUES (32, 2, 2, -4.639884870075256, 'FINITE');
INSERT INTO public.trial_intermediate_values VALUES (33, 2, 3, -4.668734564537024, 'FINITE');
INSERT INTO public.trial_intermediate_values VALUES (34, 2, 4, -4.699966885706688, 'FINITE');
INSERT INTO public.trial_intermediate_values VALUES (35, 2, 5, -4.7236926480528965, 'FINITE');
INSERT INTO public.trial_intermediate_values VALUES (36, 2, 6, -4.745029074241803, 'FINITE');
INSERT INTO public.trial_intermediate_values VALUES (37, 2, 7, -4.766860677023456, 'FINITE');
INSERT INTO public.trial_intermediate_values VALUES (38, 2, 8, -4.792184037420885, 'FINITE');
INSERT INTO public.trial_intermediate_values VALUES (39, 2, 9, -4.798353143817841, 'FINITE');
INSERT INTO public.trial_intermediate_values VALUES (40, 2, 10, -4.819903424425868, 'FINITE');
INSERT INTO public.trial_intermediate_values VALUES (41, 2, 11, -4.840151631413738, 'FINITE');
INSERT INTO public.trial_intermediate_values VALUES (42, 2, 12, -4.86491813317754, 'FINITE');


--
-- Data for Name: trial_params; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.trial_params VALUES (1, 1, 'layers', 1, '{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 1, "high": 1}}');
INSERT INTO public.trial_params VALUES (2, 1, 'oversampling', 1.2, '{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.8, "high": 1.8, "log": false}}');
INSERT INTO public.trial_params VALUES (3, 1, 'width', 0, '{"name": "CategoricalDistribution", "attributes": {"choices": [32]}}');
INSERT INTO public.trial_params VALUES (4, 1, 'lr', 0.001, '{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0001, "high": 0.03, "log": true}}');
INSERT INTO public.trial_params VALUES (5, 1, 'schedule', 2, '{"name": "CategoricalDistribution", "attributes": {"choices": ["constant", "linear", "cosine"]}}');
INSERT INTO public.trial_params VALUES (6, 1, 'warmup', 0.05, '{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.01, "high": 0.2, "log": false}}');
INSERT INTO public.trial_params VALUES (7, 1, 'batch', 1, '{"name": "CategoricalDistribution", "attributes": {"choices": [64, 128]}}');
INSERT INTO public.trial_params VALUES (8, 1, 'w_likelihood', 0.3, '{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.03, "high": 3.0, "log": true}}');
INSERT INTO public.trial_params VALUES (9, 1, 'w_contrast', 0.3, '{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.03, "high": 3.0, "log": true}}');
INSERT INTO public.trial_params VALUES (10, 2, 'layers', 1, '{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 1, "high": 1}}');
INSERT INTO public.trial_params VALUES (11, 2, 'oversampling', 1.0890531411651905, '{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.8, "high": 1.8, "log": false}}');
INSERT INTO public.trial_params VALUES (12, 2, 'width', 0, '{"name": "CategoricalDistribution", "attributes": {"choices": [32]}}');
INSERT INTO public.trial_params VALUES (13, 2, 'lr', 0.00011643428451633899, '{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.0001, "high": 0.03, "log": true}}');
INSERT INTO public.trial_params VALUES (14, 2, 'schedule', 2, '{"name": "CategoricalDistribution", "attributes": {"choices": ["constant", "linear", "cosine"]}}');
INSERT INTO public.trial_params VALUES (15, 2, 'warmup', 0.0677059719791187, '{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.01, "high": 0.2, "log": false}}');
INSERT INTO public.trial_params VALUES (16, 2, 'batch', 0, '{"name": "CategoricalDistribution", "attributes": {"choices": [64, 128]}}');
INSERT INTO public.trial_params VALUES (17, 2, 'w_likelihood', 0.04536017993490504, '{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.03, "high": 3.0, "log": true}}');
INSERT INTO public.trial_params VALUES (18, 2, 'w_contrast', 0.4728824869043714, '{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.03, "high": 3.0, "log": true}}');


--
-- Data for Name: trial_system_attributes; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.trial_system_attributes VALUES (1, 1, 'fixed_params', '{"layers": 1, "oversampling": 1.2, "width": 32, "lr": 0.001, "schedule": "cosine", "warmup": 0.05, "batch": 128, "w_likelihood": 0.3, "w_contrast": 0.3}');
INSERT INTO public.trial_system_attributes VALUES (2, 1, 'hpo:untrained', '-4.433162593121437');
INSERT INTO public.trial_system_attributes VALUES (3, 1, 'constraints:nonfinite', '0.0');
INSERT INTO public.trial_system_attributes VALUES (4, 2, 'hpo:untrained', '-4.611336477151816');


--
-- Data for Name: trial_user_attributes; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.trial_user_attributes VALUES (1, 1, 'prune_reason', '"-"');
INSERT INTO public.trial_user_attributes VALUES (3, 1, 'prune_detail', '"-"');
INSERT INTO public.trial_user_attributes VALUES (4, 1, 'precision', '"fp32"');
INSERT INTO public.trial_user_attributes VALUES (5, 1, 'worker', '"vm/cpu:0"');
INSERT INTO public.trial_user_attributes VALUES (6, 1, 'seconds', '10.837');
INSERT INTO public.trial_user_attributes VALUES (7, 1, 'gpu_seconds', '0.0');
INSERT INTO public.trial_user_attributes VALUES (8, 1, 'skipped_steps', '0');
INSERT INTO public.trial_user_attributes VALUES (9, 1, 'run_uid', '"7267e411-2e98-47bc-9d44-c4e1156d02a6"');
INSERT INTO public.trial_user_attributes VALUES (10, 1, 'seed', '473390587');
INSERT INTO public.trial_user_attributes VALUES (11, 1, 'git_sha', '"a6cd77b361e0"');
INSERT INTO public.trial_user_attributes VALUES (22, 2, 'prune_reason', '"-"');
INSERT INTO public.trial_user_attributes VALUES (24, 2, 'prune_detail', '"-"');
INSERT INTO public.trial_user_attributes VALUES (25, 2, 'precision', '"fp32"');
INSERT INTO public.trial_user_attributes VALUES (26, 2, 'worker', '"vm/cpu:0"');
INSERT INTO public.trial_user_attributes VALUES (27, 2, 'seconds', '0.041');
INSERT INTO public.trial_user_attributes VALUES (28, 2, 'gpu_seconds', '0.0');
INSERT INTO public.trial_user_attributes VALUES (29, 2, 'skipped_steps', '0');
INSERT INTO public.trial_user_attributes VALUES (30, 2, 'run_uid', '"91e54756-e9fd-4618-877e-282ad5c5776a"');
INSERT INTO public.trial_user_attributes VALUES (31, 2, 'seed', '749841192');
INSERT INTO public.trial_user_attributes VALUES (32, 2, 'git_sha', '"a6cd77b361e0"');


--
-- Data for Name: trial_values; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.trial_values VALUES (1, 1, 0, -4.435604029607716, 'FINITE');


--
-- Data for Name: trials; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.trials VALUES (1, 0, 1, 'COMPLETE', '2026-11-30 04:07:04.460232', '2026-11-30 04:07:15.425193');
INSERT INTO public.trials VALUES (2, 1, 1, 'RUNNING', '2026-11-30 04:07:15.868698', NULL);


--
-- Data for Name: version_info; Type: TABLE DATA; Schema: public; Owner: -
--

INSERT INTO public.version_info VALUES (1, 12, '5.0.0');


--
-- Name: schema_version_version_seq; Type: SEQUENCE SET; Schema: hpo; Owner: -
--

SELECT pg_catalog.setval('hpo.schema_version_version_seq', 1, false);


--
-- Name: studies_study_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.studies_study_id_seq', 1, true);


--
-- Name: study_directions_study_direction_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.study_directions_study_direction_id_seq', 1, true);


--
-- Name: study_system_attributes_study_system_attribute_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.study_system_attributes_study_system_attribute_id_seq', 1, true);


--
-- Name: study_user_attributes_study_user_attribute_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.study_user_attributes_study_user_attribute_id_seq', 4, true);


--
-- Name: trial_heartbeats_trial_heartbeat_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.trial_heartbeats_trial_heartbeat_id_seq', 1, false);


--
-- Name: trial_intermediate_values_trial_intermediate_value_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.trial_intermediate_values_trial_intermediate_value_id_seq', 42, true);


--
-- Name: trial_params_param_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.trial_params_param_id_seq', 18, true);


--
-- Name: trial_system_attributes_trial_system_attribute_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.trial_system_attributes_trial_system_attribute_id_seq', 4, true);


--
-- Name: trial_user_attributes_trial_user_attribute_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.trial_user_attributes_trial_user_attribute_id_seq', 32, true);


--
-- Name: trial_values_trial_value_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.trial_values_trial_value_id_seq', 1, true);


--
-- Name: trials_trial_id_seq; Type: SEQUENCE SET; Schema: public; Owner: -
--

SELECT pg_catalog.setval('public.trials_trial_id_seq', 2, true);


--
-- Name: artifacts artifacts_pkey; Type: CONSTRAINT; Schema: hpo; Owner: -
--

ALTER TABLE ONLY hpo.artifacts
    ADD CONSTRAINT artifacts_pkey PRIMARY KEY (artifact_id, part);


--
-- Name: divergences divergences_pkey; Type: CONSTRAINT; Schema: hpo; Owner: -
--

ALTER TABLE ONLY hpo.divergences
    ADD CONSTRAINT divergences_pkey PRIMARY KEY (study_uid, trial_number);


--
-- Name: environments environments_pkey; Type: CONSTRAINT; Schema: hpo; Owner: -
--

ALTER TABLE ONLY hpo.environments
    ADD CONSTRAINT environments_pkey PRIMARY KEY (worker, study_uid);


--
-- Name: leases leases_pkey; Type: CONSTRAINT; Schema: hpo; Owner: -
--

ALTER TABLE ONLY hpo.leases
    ADD CONSTRAINT leases_pkey PRIMARY KEY (run_uid);


--
-- Name: leases leases_study_uid_ticket_key; Type: CONSTRAINT; Schema: hpo; Owner: -
--

ALTER TABLE ONLY hpo.leases
    ADD CONSTRAINT leases_study_uid_ticket_key UNIQUE (study_uid, ticket);


--
-- Name: metrics metrics_pkey; Type: CONSTRAINT; Schema: hpo; Owner: -
--

ALTER TABLE ONLY hpo.metrics
    ADD CONSTRAINT metrics_pkey PRIMARY KEY (run_uid, epoch);


--
-- Name: predictions predictions_pkey; Type: CONSTRAINT; Schema: hpo; Owner: -
--

ALTER TABLE ONLY hpo.predictions
    ADD CONSTRAINT predictions_pkey PRIMARY KEY (study_uid, trial_number, step, sample);


--
-- Name: schema_version schema_version_pkey; Type: CONSTRAINT; Schema: hpo; Owner: -
--

ALTER TABLE ONLY hpo.schema_version
    ADD CONSTRAINT schema_version_pkey PRIMARY KEY (version);


--
-- Name: tickets tickets_pkey; Type: CONSTRAINT; Schema: hpo; Owner: -
--

ALTER TABLE ONLY hpo.tickets
    ADD CONSTRAINT tickets_pkey PRIMARY KEY (study_uid, ticket);


--
-- Name: alembic_version alembic_version_pkc; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);


--
-- Name: studies studies_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.studies
    ADD CONSTRAINT studies_pkey PRIMARY KEY (study_id);


--
-- Name: study_directions study_directions_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.study_directions
    ADD CONSTRAINT study_directions_pkey PRIMARY KEY (study_direction_id);


--
-- Name: study_directions study_directions_study_id_objective_key; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.study_directions
    ADD CONSTRAINT study_directions_study_id_objective_key UNIQUE (study_id, objective);


--
-- Name: study_system_attributes study_system_attributes_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.study_system_attributes
    ADD CONSTRAINT study_system_attributes_pkey PRIMARY KEY (study_system_attribute_id);


--
-- Name: study_system_attributes study_system_attributes_study_id_key_key; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.study_system_attributes
    ADD CONSTRAINT study_system_attributes_study_id_key_key UNIQUE (study_id, key);


--
-- Name: study_user_attributes study_user_attributes_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.study_user_attributes
    ADD CONSTRAINT study_user_attributes_pkey PRIMARY KEY (study_user_attribute_id);


--
-- Name: study_user_attributes study_user_attributes_study_id_key_key; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.study_user_attributes
    ADD CONSTRAINT study_user_attributes_study_id_key_key UNIQUE (study_id, key);


--
-- Name: trial_heartbeats trial_heartbeats_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.trial_heartbeats
    ADD CONSTRAINT trial_heartbeats_pkey PRIMARY KEY (trial_heartbeat_id);


--
-- Name: trial_heartbeats trial_heartbeats_trial_id_key; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.trial_heartbeats
    ADD CONSTRAINT trial_heartbeats_trial_id_key UNIQUE (trial_id);


--
-- Name: trial_intermediate_values trial_intermediate_values_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.trial_intermediate_values
    ADD CONSTRAINT trial_intermediate_values_pkey PRIMARY KEY (trial_intermediate_value_id);


--
-- Name: trial_intermediate_values trial_intermediate_values_trial_id_step_key; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.trial_intermediate_values
    ADD CONSTRAINT trial_intermediate_values_trial_id_step_key UNIQUE (trial_id, step);


--
-- Name: trial_params trial_params_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.trial_params
    ADD CONSTRAINT trial_params_pkey PRIMARY KEY (param_id);


--
-- Name: trial_params trial_params_trial_id_param_name_key; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.trial_params
    ADD CONSTRAINT trial_params_trial_id_param_name_key UNIQUE (trial_id, param_name);


--
-- Name: trial_system_attributes trial_system_attributes_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.trial_system_attributes
    ADD CONSTRAINT trial_system_attributes_pkey PRIMARY KEY (trial_system_attribute_id);


--
-- Name: trial_system_attributes trial_system_attributes_trial_id_key_key; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.trial_system_attributes
    ADD CONSTRAINT trial_system_attributes_trial_id_key_key UNIQUE (trial_id, key);


--
-- Name: trial_user_attributes trial_user_attributes_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.trial_user_attributes
    ADD CONSTRAINT trial_user_attributes_pkey PRIMARY KEY (trial_user_attribute_id);


--
-- Name: trial_user_attributes trial_user_attributes_trial_id_key_key; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.trial_user_attributes
    ADD CONSTRAINT trial_user_attributes_trial_id_key_key UNIQUE (trial_id, key);


--
-- Name: trial_values trial_values_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.trial_values
    ADD CONSTRAINT trial_values_pkey PRIMARY KEY (trial_value_id);


--
-- Name: trial_values trial_values_trial_id_objective_key; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.trial_values
    ADD CONSTRAINT trial_values_trial_id_objective_key UNIQUE (trial_id, objective);


--
-- Name: trials trials_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.trials
    ADD CONSTRAINT trials_pkey PRIMARY KEY (trial_id);


--
-- Name: version_info version_info_pkey; Type: CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.version_info
    ADD CONSTRAINT version_info_pkey PRIMARY KEY (version_info_id);


--
-- Name: ix_hpo_metrics_study_uid; Type: INDEX; Schema: hpo; Owner: -
--

CREATE INDEX ix_hpo_metrics_study_uid ON hpo.metrics USING btree (study_uid);


--
-- Name: ix_hpo_predictions_at; Type: INDEX; Schema: hpo; Owner: -
--

CREATE INDEX ix_hpo_predictions_at ON hpo.predictions USING btree (at);


--
-- Name: ix_studies_study_name; Type: INDEX; Schema: public; Owner: -
--

CREATE UNIQUE INDEX ix_studies_study_name ON public.studies USING btree (study_name);


--
-- Name: ix_trials_study_id; Type: INDEX; Schema: public; Owner: -
--

CREATE INDEX ix_trials_study_id ON public.trials USING btree (study_id);


--
-- Name: leases leases_study_uid_ticket_fkey; Type: FK CONSTRAINT; Schema: hpo; Owner: -
--

ALTER TABLE ONLY hpo.leases
    ADD CONSTRAINT leases_study_uid_ticket_fkey FOREIGN KEY (study_uid, ticket) REFERENCES hpo.tickets(study_uid, ticket);


--
-- Name: study_directions study_directions_study_id_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.study_directions
    ADD CONSTRAINT study_directions_study_id_fkey FOREIGN KEY (study_id) REFERENCES public.studies(study_id);


--
-- Name: study_system_attributes study_system_attributes_study_id_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.study_system_attributes
    ADD CONSTRAINT study_system_attributes_study_id_fkey FOREIGN KEY (study_id) REFERENCES public.studies(study_id);


--
-- Name: study_user_attributes study_user_attributes_study_id_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.study_user_attributes
    ADD CONSTRAINT study_user_attributes_study_id_fkey FOREIGN KEY (study_id) REFERENCES public.studies(study_id);


--
-- Name: trial_heartbeats trial_heartbeats_trial_id_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.trial_heartbeats
    ADD CONSTRAINT trial_heartbeats_trial_id_fkey FOREIGN KEY (trial_id) REFERENCES public.trials(trial_id);


--
-- Name: trial_intermediate_values trial_intermediate_values_trial_id_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.trial_intermediate_values
    ADD CONSTRAINT trial_intermediate_values_trial_id_fkey FOREIGN KEY (trial_id) REFERENCES public.trials(trial_id);


--
-- Name: trial_params trial_params_trial_id_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.trial_params
    ADD CONSTRAINT trial_params_trial_id_fkey FOREIGN KEY (trial_id) REFERENCES public.trials(trial_id);


--
-- Name: trial_system_attributes trial_system_attributes_trial_id_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.trial_system_attributes
    ADD CONSTRAINT trial_system_attributes_trial_id_fkey FOREIGN KEY (trial_id) REFERENCES public.trials(trial_id);


--
-- Name: trial_user_attributes trial_user_attributes_trial_id_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.trial_user_attributes
    ADD CONSTRAINT trial_user_attributes_trial_id_fkey FOREIGN KEY (trial_id) REFERENCES public.trials(trial_id);


--
-- Name: trial_values trial_values_trial_id_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.trial_values
    ADD CONSTRAINT trial_values_trial_id_fkey FOREIGN KEY (trial_id) REFERENCES public.trials(trial_id);


--
-- Name: trials trials_study_id_fkey; Type: FK CONSTRAINT; Schema: public; Owner: -
--

ALTER TABLE ONLY public.trials
    ADD CONSTRAINT trials_study_id_fkey FOREIGN KEY (study_id) REFERENCES public.studies(study_id);


--
-- PostgreSQL database dump complete
--


